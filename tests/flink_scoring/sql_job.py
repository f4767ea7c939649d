"""A Python job that registers the functions of a file and prints what they give; see test_sql_jobs."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from pyflink.common import Row, Types
from pyflink.datastream import StreamExecutionEnvironment
from pyflink.table import DataTypes, EnvironmentSettings, TableEnvironment, TableResult

from ferryline.flink_scoring.sql import map_rows, register

PEOPLE = [(30.0, 1, "Ulm", True), (40.0, 2, "Bonn", False), (50.0, 3, None, True)]
LISTS = [([1.0, 2.0, 3.0],), ([1.0, 2.0],)]
QUERIES = {
    # field by field: PyFlink's collect cannot read a ROW that has a NULL in it
    "price": "SELECT age, p.price, p.`where`, p.`both`, p.version, p.generation, q.price "
    "FROM (SELECT age, Price(age, visits, town, is_member) AS p, Price(age, 7, 'Ulm', TRUE) AS q "
    "FROM People)",
    "filtered": "SELECT age FROM People WHERE Price(age, visits, town, is_member).price > 100",
    "total": "SELECT Total(numbers) FROM Lists",
    "alone": "SELECT Twice(1.5 + 0 * RAND())",
}


def rows(result: TableResult) -> list[list[Any]]:
    with result.collect() as found:
        return sorted((list(row) for row in found), key=str)


def table_results(functions: Path) -> dict[str, Any]:
    tables = TableEnvironment.create(EnvironmentSettings.in_streaming_mode())
    tables.get_config().set("python.executable", sys.executable)
    tables.get_config().set("parallelism.default", "1")
    kinds = [DataTypes.DOUBLE(), DataTypes.INT(), DataTypes.STRING(), DataTypes.BOOLEAN()]
    _view(tables, "People", PEOPLE, dict(zip(("age", "visits", "town", "is_member"), kinds, strict=True)))
    _view(tables, "Lists", LISTS, {"numbers": DataTypes.ARRAY(DataTypes.DOUBLE())})
    planned = register(tables, functions)
    results = {name: rows(tables.execute_sql(query)) for name, query in QUERIES.items()}
    return {"signatures": {name: str(each) for name, each in planned.items()}, **results}


def _view(tables: TableEnvironment, name: str, elements: list[Any], kinds: dict[str, Any]) -> None:
    schema = DataTypes.ROW([DataTypes.FIELD(column, kind) for column, kind in kinds.items()])
    tables.create_temporary_view(name, tables.from_elements(elements, schema))


def stream_results(functions: Path) -> list[list[Any]]:
    stream = StreamExecutionEnvironment.get_execution_environment()
    stream.set_parallelism(1)
    stream.set_python_executable(sys.executable)
    kind = Types.ROW_NAMED(["id", "x"], [Types.INT(), Types.DOUBLE()])
    numbers = stream.from_collection([Row(1, 2.0), Row(2, 5.0)], type_info=kind)
    with map_rows(numbers, functions, "Twice", ["x"]).execute_and_collect() as collected:
        return sorted(list(row) for row in collected)


if __name__ == "__main__":
    file = Path(sys.argv[1])
    sys.stdout.write(f"FOUND {json.dumps({**table_results(file), 'stream': stream_results(file)})}\n")
