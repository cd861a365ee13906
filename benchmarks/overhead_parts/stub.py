"""A chat-completions server that answers at once, with as little work as asyncio allows; prints its port.

`GET /count` answers how many completions were asked for since the last such request.
"""

from __future__ import annotations

import asyncio
import json

TOP = [{"token": "fine", "logprob": -0.01}, {"token": "no", "logprob": -4.6}]
TOKEN = {"token": "fine", "logprob": -0.01, "bytes": None, "top_logprobs": TOP}
CHOICE = {
    "index": 0,
    "message": {"role": "assistant", "content": "fine", "refusal": None},
    "logprobs": {"content": [TOKEN]},
    "finish_reason": "stop",
}
USAGE = {"prompt_tokens": 11, "completion_tokens": 1, "total_tokens": 12}
BODY = json.dumps(
    {"id": "c", "object": "chat.completion", "created": 1, "model": "m", "choices": [CHOICE], "usage": USAGE}
).encode()
asked = 0


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer the requests of one connection."""
    global asked  # noqa: PLW0603 - one server a process
    try:
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            body = BODY
            if head.startswith(b"get /count"):
                body, asked = str(asked).encode(), 0
            else:
                asked += 1
                at = head.index(b"content-length:") + 15
                await reader.readexactly(int(head[at : head.index(b"\r\n", at)]))
            start = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
            writer.write(start % len(body) + body)
    except (OSError, asyncio.IncompleteReadError, ValueError):
        writer.close()


async def main() -> None:
    """Serve until this process is ended."""
    server = await asyncio.start_server(serve, "127.0.0.1", 0, backlog=512)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
