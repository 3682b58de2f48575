"""A provider of OpenID Connect on a socket of its own: what it says, and how it lies, is the test's to choose."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
import time
import warnings
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import parse_qs, urlencode, urlsplit

from joserfc import jwt
from joserfc.jwk import RSAKey

CLIENT_ID = "headgate"
CLIENT_SECRET = "the-clients-secret"


class Provider:
    """Started with ``with``. ``claims`` go into every token over the usual ones; ``key`` signs, ``shown`` is told."""

    def __init__(self) -> None:
        self.key = RSAKey.generate_key(2048, parameters={"kid": "one"})
        self.shown = [self.key]
        self.claims: dict[str, Any] = {}
        self.algorithm = "RS256"
        self.signing: Any = None
        self.codes: dict[str, dict[str, str]] = {}
        self.delay_s = 0.0
        self.asked: list[str] = []

    def __enter__(self) -> Self:
        provider = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_: object) -> None:
                pass

            def do_GET(self) -> None:
                provider.asked.append(self.path)
                time.sleep(provider.delay_s)
                path = urlsplit(self.path)
                if path.path == "/.well-known/openid-configuration":
                    self.tell(provider.document())
                elif path.path == "/keys":
                    self.tell({"keys": [key.as_dict(private=False) for key in provider.shown]})
                elif path.path == "/authorize":
                    location = provider.authorize({name: values[0] for name, values in parse_qs(path.query).items()})
                    self.send_response(302)
                    self.send_header("location", location)
                    self.end_headers()

            def do_POST(self) -> None:
                provider.asked.append(self.path)
                body = self.rfile.read(int(self.headers["content-length"])).decode()
                form = {name: values[0] for name, values in parse_qs(body).items()}
                answer = provider.token(form, self.headers.get("authorization", ""))
                self.tell(answer, 400 if "error" in answer else 200)

            def tell(self, value: object, status: int = 200) -> None:
                body = json.dumps(value).encode()
                self.send_response(status)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join(5)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}"

    def document(self) -> dict[str, str]:
        return {
            "issuer": self.url,
            "authorization_endpoint": f"{self.url}/authorize",
            "token_endpoint": f"{self.url}/token",
            "jwks_uri": f"{self.url}/keys",
        }

    def authorize(self, query: dict[str, str]) -> str:
        """Where the browser goes next: whoever it is has agreed."""
        assert query["response_type"] == "code"
        assert query["client_id"] == CLIENT_ID
        assert query["code_challenge_method"] == "S256"
        code = f"code-{len(self.codes)}"
        self.codes[code] = query
        return f"{query['redirect_uri']}?{urlencode({'code': code, 'state': query['state']})}"

    def token(self, form: dict[str, str], authorization: str) -> dict[str, Any]:
        query = self.codes.pop(form.get("code", ""), None)
        expected = base64.b64encode(f"{CLIENT_ID}:{CLIENT_SECRET}".encode()).decode()
        verifier = form.get("code_verifier", "")
        challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).decode().rstrip("=")
        if query is None or authorization != f"Basic {expected}" or challenge != query["code_challenge"]:
            return {"error": "invalid_grant"}
        if form["redirect_uri"] != query["redirect_uri"]:
            return {"error": "invalid_grant"}
        now_s = int(time.time())
        claims = {
            "iss": self.url,
            "aud": CLIENT_ID,
            "sub": "user-1",
            "email": "mara@acme.example",
            "email_verified": True,
            "iat": now_s,
            "exp": now_s + 300,
            "nonce": query["nonce"],
            **self.claims,
        }
        claims = {name: value for name, value in claims.items() if value is not None}
        signing = self.signing or self.key
        header = {"alg": self.algorithm, **({"kid": signing.kid} if self.algorithm != "none" else {})}
        with warnings.catch_warnings():
            # The library warns of what is played here on purpose: nobody's signature.
            warnings.simplefilter("ignore")
            token = jwt.encode(header, claims, signing, algorithms=[self.algorithm])
        return {"access_token": "x", "token_type": "Bearer", "expires_in": 300, "id_token": token}
