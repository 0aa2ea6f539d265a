"""An S3 server in this process, on loopback, that keeps its objects in memory and counts what it is asked."""

import math
from collections import Counter
from contextlib import contextmanager
from http.client import HTTPConnection

BUCKET = "store"
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "reader", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_DEFAULT_REGION": "us-east-1"}
"""The server takes any."""
NO_ACCOUNT = {"AWS_CONFIG_FILE": "/nowhere", "AWS_SHARED_CREDENTIALS_FILE": "/nowhere", "no_proxy": "127.0.0.1"}


class Requests(Counter):
    """How many of each method there were; when there were so many, the server refuses the rest."""

    refused_after = math.inf


class Store:
    """One bucket of the server."""

    def __init__(self, address, requests):
        self.address, self.requests = address, requests
        self.environment = CREDENTIALS | NO_ACCOUNT
        """For programs that are to use it."""
        self._client = self._connect()
        self._client.create_bucket(Bucket=BUCKET)
        requests.clear()

    def _connect(self):
        import boto3
        from botocore.config import Config

        return boto3.client(
            "s3",
            endpoint_url=self.address,
            region_name=CREDENTIALS["AWS_DEFAULT_REGION"],
            aws_access_key_id=CREDENTIALS["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=CREDENTIALS["AWS_SECRET_ACCESS_KEY"],
            config=Config(proxies={}),
        )

    @property
    def keys(self):
        """Of all objects, sorted."""
        pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET)
        return sorted(item["Key"] for page in pages for item in page.get("Contents", []))

    def read(self, key):
        return self._client.get_object(Bucket=BUCKET, Key=key)["Body"].read()

    def write(self, key, contents):
        self._client.put_object(Bucket=BUCKET, Key=key, Body=contents)


@contextmanager
def serving_s3():
    """The server's one bucket, empty at first, while the server runs; `requests` counts by method."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    requests = Requests()
    _count(server, requests)
    host, port = server.get_host_and_port()
    _forget_all(host, port)
    try:
        yield Store(f"http://{host}:{port}", requests)
    finally:
        server.stop()


def _forget_all(host, port):
    """All servers of one process have the same objects."""
    connection = HTTPConnection(host, port)
    connection.request("POST", "/moto-api/reset")
    assert connection.getresponse().status == 200
    connection.close()


def _count(server, requests):
    """From now on requests are counted by method, and no longer printed."""
    answer = server._server.app

    def counted(environ, start_response):
        requests[environ["REQUEST_METHOD"]] += 1
        if requests.total() > requests.refused_after:
            start_response("403 Forbidden", [("Content-Length", "0")])
            return []
        return answer(environ, start_response)

    server._server.app = counted
    server._server.RequestHandlerClass.log_request = lambda *_: None
