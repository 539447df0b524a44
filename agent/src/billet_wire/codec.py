"""Structs to JSON text and back. `WireError` is the only error, whatever the bytes hold."""

import msgspec

from billet_wire.messages import AgentMessage, ServerMessage

MAX_MESSAGE_BYTES = 96 * 1024 * 1024
"""A config drive of 64 MiB in base64, and room around it."""

_agent: msgspec.json.Decoder[AgentMessage] = msgspec.json.Decoder(AgentMessage)
_server: msgspec.json.Decoder[ServerMessage] = msgspec.json.Decoder(ServerMessage)
_encoder = msgspec.json.Encoder()


class WireError(ValueError):
    """A frame that is not one of the messages; the text says where it differs."""


def encode(message: AgentMessage | ServerMessage) -> str:
    """Return the frame's JSON text."""
    return _encoder.encode(message).decode()


def decode_agent(text: str | bytes) -> AgentMessage:
    """Parse a frame sent by an agent. Raises `WireError`."""
    try:
        return _agent.decode(text)
    except (msgspec.DecodeError, RecursionError, ValueError) as error:
        raise WireError(f"not a message of an agent: {error}") from error


def decode_server(text: str | bytes) -> ServerMessage:
    """Parse a frame sent by a server. Raises `WireError`."""
    try:
        return _server.decode(text)
    except (msgspec.DecodeError, RecursionError, ValueError) as error:
        raise WireError(f"not a message of a server: {error}") from error
