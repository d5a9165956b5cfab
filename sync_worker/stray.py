"""What Celery says of messages that are none of ours, in one sentence with its cure.

A message that cannot be used is thrown away by Celery: a task of another version, or bytes that
somebody else left in this Redis. No change is lost by that, since messages are wake-ups and what
is due is woken again (B6.7), so nothing of it is kept as a dead letter either. Celery's own words
for it are a dozen lines, among them the whole of the message, which no log may hold (B10.4).
"""

from __future__ import annotations

import logging

from celery.worker.consumer import consumer
from redis import RedisError

_UNKNOWN = (
    "a wake-up asked for the task %.100s, which this version does not have, and was thrown away; "
    "what is due is woken again: let all processes run the same version"
)

_UNUSABLE = (
    "a message in a queue of ours could not be used and was thrown away; what is due is woken "
    "again: see who else writes to this Redis under sw:celery:"
)

_NO_MESSAGE = (
    "what lay in a queue of ours is no message at all, which ends Celery (%s); it is started "
    "again: see who else writes to this Redis under sw:celery:"
)

_ASKED_UNKNOWN = consumer.UNKNOWN_TASK_ERROR  # type: ignore[attr-defined]

_USELESS = {
    consumer.UNKNOWN_FORMAT,  # type: ignore[attr-defined]
    consumer.INVALID_TASK_ERROR,  # type: ignore[attr-defined]
    consumer.MESSAGE_DECODE_ERROR,  # type: ignore[attr-defined]
}


def reword() -> None:
    """Have these log lines reworded in this process."""
    logging.getLogger("celery.worker.consumer.consumer").addFilter(_reword_message)
    logging.getLogger("celery.worker").addFilter(_reword_end)


def _reword_message(record: logging.LogRecord) -> bool:
    if record.msg == _ASKED_UNKNOWN and isinstance(record.args, tuple):
        _say(record, _UNKNOWN, record.args[0])
    elif record.msg in _USELESS:
        _say(record, _UNUSABLE)
    return True


def _reword_end(record: logging.LogRecord) -> bool:
    error = record.exc_info[1] if record.exc_info else None
    if error is not None and _is_about_a_message(error):
        _say(record, _NO_MESSAGE, type(error).__name__)
    return True


def _say(record: logging.LogRecord, message: str, *args: object) -> None:
    record.msg, record.args = message, args
    record.exc_info = record.exc_text = None
    record.levelno, record.levelname = logging.ERROR, "ERROR"


def _is_about_a_message(error: BaseException) -> bool:
    """Whether kombu failed at making a message of what it read, before Celery saw any of it."""
    trace, path = error.__traceback__, []
    while trace is not None:
        package = str(trace.tb_frame.f_globals.get("__name__", "")).partition(".")[0]
        path.append((package, trace.tb_frame.f_code.co_name))
        trace = trace.tb_next
    if ("kombu", "_brpop_read") not in path:
        return False
    reading = path[path.index(("kombu", "_brpop_read")) :]
    return not isinstance(error, (OSError, RedisError)) and all(
        package != "celery" for package, _ in reading
    )
