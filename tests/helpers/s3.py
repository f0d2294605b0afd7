"""An S3 server (moto) on loopback with injectable failures, and the environment variables that point clients to it."""

from __future__ import annotations

import logging
import threading
from http import HTTPStatus

BUSY = b"<?xml version='1.0'?><Error><Code>SlowDown</Code><Message>Reduce your request rate</Message></Error>"
DOWN = b"<?xml version='1.0'?><Error><Code>ServiceUnavailable</Code><Message>Service is down</Message></Error>"
DENIED = b"<?xml version='1.0'?><Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"


class S3Server:
    """An S3 server, used as a context manager.

    The next ``failures_left`` requests, and every ``fail_every``-th request, get 503 SlowDown. With ``denied`` all
    requests get 403; with ``down`` all get 503.
    """

    def __init__(self):
        from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
        from werkzeug.serving import make_server

        logging.getLogger("werkzeug").setLevel(logging.ERROR)
        self._app = DomainDispatcherApplication(create_backend_app)
        self._server = make_server("127.0.0.1", 0, self, threaded=True)
        self.requests = []  # (method, path)
        self.reset()
        self._lock = threading.Lock()
        self.variables = {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self._server.server_port}",
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_MAX_ATTEMPTS": "1",  # no retries by the client: augbench's own retries are under test
        }

    def __call__(self, environ, start_response):
        with self._lock:
            self.requests.append((environ["REQUEST_METHOD"], environ["PATH_INFO"]))
            fails = self.failures_left > 0
            self.failures_left -= fails
            fails = fails or bool(self.fail_every and len(self.requests) % self.fail_every == 0)
        if fails or self.denied or self.down:
            status = HTTPStatus.FORBIDDEN if self.denied else HTTPStatus.SERVICE_UNAVAILABLE
            environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
            start_response(f"{status.value} {status.phrase}", [("Content-Type", "application/xml")])
            return [DENIED if self.denied else BUSY if fails else DOWN]
        return self._app(environ, start_response)

    def __enter__(self):
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *exception):
        self._server.shutdown()
        self._server.server_close()

    def reset(self):
        self.failures_left, self.fail_every, self.denied, self.down = 0, 0, False, False
        self.requests.clear()

    def make_bucket(self, name):
        """Create a bucket, or empty it, and return its URL."""
        import boto3

        keys = {"aws_access_key_id": "test", "aws_secret_access_key": "test", "region_name": "us-east-1"}
        s3 = boto3.resource("s3", endpoint_url=self.variables["AWS_ENDPOINT_URL"], **keys)
        bucket = s3.Bucket(name)
        bucket.create()
        bucket.objects.all().delete()
        return f"s3://{name}"
