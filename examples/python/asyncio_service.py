"""A small service for one host: lyrics in by a socket, a FLAC file out, many callers at once.

python examples/python/asyncio_service.py --port 9000
nc -N 127.0.0.1 9000 < examples/lyrics.txt > song.flac
"""

import argparse
import asyncio

from heartvoice.client import AsyncClient
from heartvoice.errors import HeartvoiceError


async def serve(url: str, port: int, seconds: float) -> None:
    """Answer callers until the process is stopped."""
    async with AsyncClient(url) as client:

        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            lyrics = (await reader.read()).decode("utf-8", "replace")
            try:
                data, _ = await client.render(lyrics, "pop", file_format="flac", duration_s=seconds)
            except HeartvoiceError as error:  # no room, or wrong lyrics: the caller is told
                data = f"error: {error}\n".encode()
            writer.write(data)
            await writer.drain()
            writer.close()

        server = await asyncio.start_server(answer, "127.0.0.1", port)
        print("ready on", server.sockets[0].getsockname()[1], flush=True)
        await server.serve_forever()


if __name__ == "__main__":
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--url", default="127.0.0.1:8001")
    arguments.add_argument("--port", type=int, default=9000)
    arguments.add_argument("--seconds", type=float, default=20)
    options = arguments.parse_args()
    asyncio.run(serve(options.url, options.port, options.seconds))
