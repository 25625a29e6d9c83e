"""Gets URLs as an ordinary Python program does.

get.py LIBRARY URL   with the environment that the process has
get.py LIBRARY       for each line of standard input: a URL and variables between tabs; answers with one line
"""

import os
import sys
import warnings

TIMEOUT = 20


def urllib(url):
    import urllib.request

    # A new opener reads the variables anew, as the first urlopen of a process does.
    with urllib.request.build_opener().open(url, timeout=TIMEOUT) as answer:
        answer.read()


def requests(url):
    import requests

    requests.get(url, timeout=TIMEOUT, verify=False)


def httpx(url):
    import httpx

    with httpx.Client(timeout=TIMEOUT, verify=False) as client:
        client.get(url)


def aiohttp(url):
    import asyncio

    import aiohttp

    async def get():
        timeout = aiohttp.ClientTimeout(total=TIMEOUT)
        async with aiohttp.ClientSession(trust_env=True, timeout=timeout) as session:
            async with session.get(url, ssl=False) as answer:
                await answer.read()

    asyncio.run(get())


def attempt(get, url):
    try:
        get(url)
        return "ok"
    except Exception as error:
        return "error " + repr(error).replace("\n", " ")[:200]


def plain(field):
    return field.replace("\\t", "\t").replace("\\n", "\n").replace("\\\\", "\\")


warnings.simplefilter("ignore")
get = {"urllib": urllib, "requests": requests, "httpx": httpx, "aiohttp": aiohttp}[sys.argv[1]]
if len(sys.argv) > 2:
    print(attempt(get, sys.argv[2]))
    sys.exit()
base = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
for line in sys.stdin:
    url, *variables = map(plain, line.rstrip("\n").split("\t"))
    os.environ.clear()
    os.environ.update(base)
    for variable in variables:
        name, _, value = variable.partition("=")
        os.environ[name] = value
    print(attempt(get, url), flush=True)
