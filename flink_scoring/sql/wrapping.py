"""PyFlink's wrapper of a planned function, with names for its arguments.

PyFlink tells the planner the types of arguments alone, so errors call them `arg0`, `arg1`. A small Java class
tells the names too, so that errors name what the model takes and a query may write `Predict(age => a)`. It
is compiled in the client by the compiler that the planner uses itself, and replaced by PyFlink's own class
wherever it is serialised: no cluster needs it.
"""

from __future__ import annotations

from functools import cache
from importlib import resources
from typing import Any

import structlog
from pyflink.java_gateway import get_gateway
from pyflink.table import DataTypes
from pyflink.table.types import DataType, _to_java_data_type
from pyflink.table.udf import UserDefinedScalarFunctionWrapper
from pyflink.util.java_utils import to_jarray

from ferryline.flink_scoring.sql.function import PredictFunction
from ferryline.flink_scoring.sql.kinds import Kind, Signature, SqlType
from ferryline.flink_scoring.sql.sources import PlannedFunction

_CLASS = "NamedScalarFunction"

log = structlog.get_logger(__name__)


class NamedFunction(UserDefinedScalarFunctionWrapper):  # type: ignore[misc]  # pyflink is untyped
    """A planned function, ready to be registered in a table environment."""

    def __init__(self, planned: PlannedFunction) -> None:
        signature = planned.signature
        super().__init__(
            PredictFunction(planned),
            input_types=[data_type(argument.type) for argument in signature.arguments],
            result_type=result_type(signature),
            func_type="pandas",
            deterministic=planned.is_deterministic,
            name=signature.name,
        )
        self._argument_names = [argument.name for argument in signature.arguments]

    def _create_judf(self, serialized: bytes, inputs: Any, kind: Any) -> Any:
        plain = super()._create_judf(serialized, inputs, kind)
        try:
            return self._named(plain, inputs)
        except Exception as error:  # noqa: BLE001 - names are a courtesy: another Flink may have other classes
            reason = str(error).partition("\n")[0]
            log.warning("errors will call the arguments arg0, arg1 …", function=self._name, reason=reason)
            return plain

    def _named(self, plain: Any, inputs: Any) -> Any:
        gateway = get_gateway()
        names = to_jarray(gateway.jvm.String, self._argument_names)
        result = _to_java_data_type(self._result_type)
        given = to_jarray(gateway.jvm.Object, [plain, self._name, names, inputs, result])
        return _java_class().getConstructors()[0].newInstance(given)


@cache
def _java_class() -> Any:
    """The class, compiled once for the Java process that this one talks to."""
    jvm = get_gateway().jvm
    plain = (
        jvm.Thread.currentThread()
        .getContextClassLoader()
        .loadClass("org.apache.flink.table.functions.python.PythonScalarFunction")
    )
    compiler = jvm.org.codehaus.janino.SimpleCompiler()
    compiler.setParentClassLoader(plain.getClassLoader())
    compiler.cook(resources.files(__package__).joinpath(f"{_CLASS}.java").read_text("utf-8"))
    return compiler.getClassLoader().loadClass(f"ferryline.{_CLASS}")


def data_type(kind: SqlType) -> DataType:
    """Flink's type."""
    scalar = {
        Kind.DOUBLE: DataTypes.DOUBLE,
        Kind.BIGINT: DataTypes.BIGINT,
        Kind.STRING: DataTypes.STRING,
        Kind.BOOLEAN: DataTypes.BOOLEAN,
    }[kind.kind]()
    return DataTypes.ARRAY(scalar) if kind.is_array else scalar


def result_type(signature: Signature) -> DataType:
    """Flink's type of what a function returns."""
    if not signature.is_row:
        return data_type(signature.fields[0].type)
    return DataTypes.ROW([DataTypes.FIELD(field.name, data_type(field.type)) for field in signature.fields])
