"""Arrays to requests, replies to answers. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from ferryline.grpc_server import datatypes
from ferryline.grpc_server.client.errors import InputError, UnreadableAnswerError, of_status
from ferryline.grpc_server.datatypes import Array
from ferryline.grpc_server.provenance import CHANNEL, DATA_AGE, DIGEST, GENERATION, PREFIX
from ferryline.grpc_server.tensors import decode_contents, decode_raw, encode_raw
from ferryline.protos.grpc_service_pb2 import (
    InferParameter,
    ModelInferRequest,
    ModelInferResponse,
    ModelStreamInferResponse,
)

Parameter = bool | int | float | str
Parameters = Mapping[str, Parameter]


@dataclass(frozen=True, slots=True)
class Question:
    """All of a request but its arrays.

    Args:
        model: the model's name.
        version: a version or a channel that must answer; empty for whatever serves.
        outputs: the outputs to give; empty for all.
        request_id: given back; while a canary runs, the same id is answered by the same version.
        parameters: of the request; servers give back those they do not know.
    """

    model: str
    version: str = ""
    outputs: Sequence[str] = ()
    request_id: str = ""
    parameters: Parameters = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class AnsweringModel:
    """Which version gave an answer, and where it comes from; what a server does not say is None.

    Args:
        name: the model's name.
        version: the version, the only one that worked on this answer.
        channel: the channel under which it serves.
        generation: that channel's generation.
        digest: the digest of the version's file.
        trained_until: the time of the newest record that it learnt from, to about the time of the way here.
    """

    name: str
    version: str
    channel: str | None
    generation: int | None
    digest: str | None
    trained_until: datetime | None


@dataclass(frozen=True, slots=True)
class Answer:
    """What a model answered, and which version of it did.

    The arrays are read-only, since they lie in the reply itself; copy one to change it. BYTES come as text.

    Args:
        outputs: by name, in the model's order.
        model: what gave it.
        id: the request's id.
        parameters: of the reply, without those that `model` says.
    """

    outputs: Mapping[str, Array]
    model: AnsweringModel
    id: str
    parameters: Parameters

    def __getitem__(self, output: str) -> Array:
        """The output of that name.

        Raises:
            KeyError: there is none; the text says which there are.
        """
        try:
            return self.outputs[output]
        except KeyError:
            raise KeyError(f"no output {output!r}; there are {', '.join(self.outputs)}") from None

    def __iter__(self) -> Iterator[str]:
        return iter(self.outputs)

    def __len__(self) -> int:
        return len(self.outputs)


def request_of(question: Question, arrays: Mapping[str, Array]) -> ModelInferRequest:
    """The message that asks `question` about `arrays`.

    Raises:
        InputError: the protocol does not carry an array or a parameter.
    """
    request = ModelInferRequest(
        model_name=question.model, model_version=question.version, id=question.request_id
    )
    for name, array in arrays.items():
        try:
            datatype = datatypes.of_array(array)
            raw = encode_raw(array, datatype)
        except (ValueError, TypeError) as error:
            raise InputError(f"input {name!r}: {error}") from error
        request.inputs.add(name=name, datatype=datatype.name, shape=array.shape)
        request.raw_input_contents.append(raw)
    for output in question.outputs:
        request.outputs.add(name=output)
    for name, value in question.parameters.items():
        request.parameters[name].CopyFrom(_parameter(name, value))
    return request


def answer_of(reply: ModelInferResponse) -> Answer:
    """What a reply says.

    Raises:
        UnreadableAnswerError: a tensor in it is not what its description says.
    """
    said = {name: _value(parameter) for name, parameter in reply.parameters.items()}
    return Answer(
        outputs={tensor.name: _output(reply, index) for index, tensor in enumerate(reply.outputs)},
        model=AnsweringModel(
            name=reply.model_name,
            version=reply.model_version,
            channel=_text(said.get(CHANNEL)),
            generation=_whole(said.get(GENERATION)),
            digest=_text(said.get(DIGEST)),
            trained_until=_trained_until(said.get(DATA_AGE)),
        ),
        id=reply.id,
        parameters={name: value for name, value in said.items() if not name.startswith(PREFIX)},
    )


def streamed_answer_of(reply: ModelStreamInferResponse) -> Answer:
    """What one reply of a stream says.

    Raises:
        InferenceError: the request got no answer; streams carry a text and no status, so its code is UNKNOWN.
        UnreadableAnswerError: as above.
    """
    if reply.error_message:
        raise of_status("UNKNOWN", reply.error_message)
    return answer_of(reply.infer_response)


def _output(reply: ModelInferResponse, index: int) -> Array:
    tensor, raws = reply.outputs[index], reply.raw_output_contents
    try:
        datatype, shape = datatypes.of_protocol(tensor.datatype), tuple(tensor.shape)
        if not raws:
            return decode_contents(tensor.contents, datatype, shape)
        return decode_raw(raws[index], datatype, shape)
    except (ValueError, IndexError) as error:
        raise UnreadableAnswerError(f"output {tensor.name!r} cannot be read: {error}") from error


def _parameter(name: str, value: Parameter) -> InferParameter:
    try:
        if isinstance(value, bool):
            return InferParameter(bool_param=value)
        if isinstance(value, int):
            return InferParameter(int64_param=value)
        if isinstance(value, float):
            return InferParameter(double_param=value)
        if isinstance(value, str):
            return InferParameter(string_param=value)
    except ValueError:  # a whole number of more than 64 bits
        pass
    raise InputError(f"parameter {name!r} is no boolean, text, float or whole number of 64 bits")


def _value(parameter: InferParameter) -> Parameter:
    chosen = parameter.WhichOneof("parameter_choice")
    value: Parameter = getattr(parameter, chosen) if chosen else ""
    return value


def _text(value: Parameter | None) -> str | None:
    return value if isinstance(value, str) else None


def _whole(value: Parameter | None) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _trained_until(age: Parameter | None) -> datetime | None:
    return datetime.now(UTC) - timedelta(seconds=age) if isinstance(age, float) else None
