"""Files of messages and a subscriber, for tests of replay."""

import asyncio
import gzip
import json

import aiomqtt


def write_messages(path, count, *, stations=3, compress=False):
    lines = [
        json.dumps(
            {
                "topic": f"cw/v1/OP/S{i % stations}/registers",
                "payload": {"seq": i // stations + 1, "readings": []},
            }
        )
        for i in range(count)
    ]
    data = ("\n".join(lines) + "\n").encode()
    path.write_bytes(gzip.compress(data) if compress else data)
    return path


class Listener:
    """A persistent subscriber that keeps what it got."""

    def __init__(self, url):
        self.host, _, port = url.removeprefix("mqtt://").partition(":")
        self.port = int(port)
        self.got = []
        self.changed = asyncio.Condition()

    async def __aenter__(self):
        self.client = aiomqtt.Client(
            self.host, self.port, protocol=aiomqtt.ProtocolVersion.V5, identifier="listener"
        )
        await self.client.__aenter__()
        await self.client.subscribe("cw/#", qos=1)
        self.task = asyncio.create_task(self._take())
        return self

    async def _take(self):
        async for message in self.client.messages:
            async with self.changed:
                self.got.append((str(message.topic), message.payload))
                self.changed.notify_all()

    async def wait_for(self, count):
        await self.wait_until(lambda: len(self.got) >= count)

    async def wait_until(self, condition):
        async with asyncio.timeout(30), self.changed:
            await self.changed.wait_for(condition)

    async def __aexit__(self, *_):
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)
        await self.client.__aexit__(None, None, None)


def sequences(got):
    found = {}
    for topic, payload in got:
        found.setdefault(topic, []).append(json.loads(payload)["seq"])
    return found
