"""A gateway that writes letters: who is to be written to is in its file, and shown as a number."""

from __future__ import annotations

from tests.e2e.admin.people import Admin
from tests.e2e.alerts.hooks import PRICED
from tests.fakes.gateway import RunningGateway
from tests.fakes.mail import MailServer


def test_a_target_by_e_mail_can_be_tried_and_its_addresses_stay_in_the_file(tmp_path):
    with MailServer(answers=("250 OK", "552 canary-mailbox is full")) as server:
        config = f"""{PRICED}
alerts:
  targets: [{{name: finance, email: {{to: [canary-one@example.com, canary-two@example.com]}}}}]
  smtp: {{host: 127.0.0.1, port: {server.port}, encryption: none, sender: gate@example.com}}
"""
        with RunningGateway(tmp_path, config) as gateway, Admin(gateway) as admin:
            tested = admin.ask("POST", "/alerts/targets/finance/test")
            assert (tested["ok"], tested["delivery"]["attempts"][0]["status"]) == (True, None)
            again = admin.ask("POST", "/alerts/targets/finance/test")
            assert (again["ok"], again["delivery"]["attempts"][0]["status"]) == (False, 552)
            (target,) = admin.ask("GET", "/alerts/targets")["data"]
            assert (target["kind"], target["to"], target["last_result"]) == ("email", "2 addresses", "failed")
            assert "canary-one" not in admin.get("/alerts/deliveries").text + gateway.log_path.read_text()
        assert [letter.to for letter in server.letters] == [["canary-one@example.com", "canary-two@example.com"]]
