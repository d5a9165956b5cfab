"""`python -m simulators.fusebill`: a simulated Fusebill as a process of its own."""

from __future__ import annotations

import argparse
import signal
import sys
import threading
from collections.abc import Sequence
from typing import Any

import msgspec

from simulators.fusebill.credentials import fake_api_key, well_formed
from simulators.fusebill.options import Options
from simulators.fusebill.server import SimulatedFusebill
from simulators.fusebill.synthetic import synthetic_customers


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until SIGINT or SIGTERM."""
    arguments = _parser().parse_args(argv)
    host, port = arguments.bind
    fusebill = SimulatedFusebill(
        api_key=arguments.api_key,
        host=host,
        port=port,
        customers=synthetic_customers(arguments.customers, arguments.first_id),
        options=_options(arguments.option),
        control_from_anywhere=arguments.control_from_anywhere,
    )
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    try:
        fusebill.start()
    except OSError as error:
        sys.stderr.write(f"cannot listen on {host}:{port}: {error}\n")
        return 1
    print(f"simulated Fusebill listens on {fusebill.url}", flush=True)
    stop.wait()
    fusebill.stop()
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m simulators.fusebill", description=__doc__)
    parser.add_argument(
        "--bind",
        type=_address,
        default=("127.0.0.1", 8900),
        metavar="HOST:PORT",
        help="where to listen (127.0.0.1:8900); port 0: any free one, named when it listens",
    )
    parser.add_argument(
        "--api-key",
        type=_api_key,
        default=fake_api_key(),
        metavar="KEY",
        help="the key that calls must carry behind `Basic ` (a fixed fake one)",
    )
    parser.add_argument(
        "--customers", type=int, default=5, metavar="N", help="synthetic customers at the start (5)"
    )
    parser.add_argument(
        "--first-id", type=int, default=8_714_401, metavar="ID", help="id of the first (8714401)"
    )
    parser.add_argument(
        "--option",
        type=_named_option,
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="a field of options.Options, its value as JSON or plain text; may be repeated",
    )
    parser.add_argument(
        "--control-from-anywhere",
        action="store_true",
        help="serve /_simulator/ to other machines too",
    )
    return parser


def _address(text: str) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    if not colon or not port.isdigit() or int(port) > 65_535:
        raise argparse.ArgumentTypeError(f"{text!r} is not HOST:PORT")
    return host, int(port)


def _api_key(text: str) -> str:
    if not well_formed(text):
        raise argparse.ArgumentTypeError("not a key: base64 of `0:` and 64 characters is")
    return text


def _named_option(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=VALUE")
    try:
        named = (name, msgspec.json.decode(value))
    except msgspec.DecodeError:
        named = (name, value)
    try:
        msgspec.convert(dict([named]), Options)
    except msgspec.ValidationError as error:
        raise argparse.ArgumentTypeError(f"{text!r}: {error}") from error
    return named


def _options(named: list[tuple[str, Any]]) -> Options:
    return msgspec.convert(dict(named), Options)


if __name__ == "__main__":
    sys.exit(main())
