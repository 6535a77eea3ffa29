"""Passwords, keys of accounts and the like, which are written down nowhere."""

import re
from itertools import pairwise
from typing import Any

HIDDEN = "***"
# Of the words in a key, such as x, api and key; two of them are joined.
SECRET = re.compile(
    r"(auth|authorization|credentials?|cookies?|bearer|jwt|oauth|token|pwd|pass|\w*(passw(or)?d|passwords|passphrase|passcode|secrets?)"
    r"|(api|access|auth|bearer|session|refresh|id|private|client|csrf|hf)(token|tokens|key|keys)"
    r"|(secret|signing|encryption|account|master|shared|ssh|deploy|license|service|subscription|storage)keys?"
    r"|sessionid|accesskeyid)"
)
NAMED = re.compile(r"([\w.~-]+)([\"']?\s*[=:]\s*)")  # and then a value:
GIVEN = re.compile(r"\A(\"[^\"]*\"|'[^']*'|[^\s&;#,'\"}\]]+)")
IN_TEXT = (
    (re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL), HIDDEN),
    (re.compile(r"\b([a-z][a-z0-9+.-]*://[^\s/?#@:]*:)[^\s/]+@", re.IGNORECASE), rf"\1{HIDDEN}@"),
    (re.compile(r"(?<![\w/])([\w.+-]+:)[^\s:/@]+@(?=[\w.-]+[:/])"), rf"\1{HIDDEN}@"),
    (re.compile(r"(--?(?:password|passwd|passphrase|token|secret|api[_-]?key)\s+)\S+", re.IGNORECASE), rf"\1{HIDDEN}"),
    (re.compile(r"((authorization|cookie)[\"']?\s*[:=]\s*).+", re.IGNORECASE), rf"\1{HIDDEN}"),
    (re.compile(r"\b(Bearer\s+)[\w.~+/=-]+", re.IGNORECASE), rf"\1{HIDDEN}"),
    (re.compile(r"\A(Basic\s+)\S+\Z", re.IGNORECASE), rf"\1{HIDDEN}"),
    (
        re.compile(  # as Hugging Face, GitHub, GitLab, OpenAI, Stripe, AWS, Slack, Google, PyPI, W&B and JWT write them
            r"(?<![A-Za-z0-9])(hf_[A-Za-z0-9]{16,}|gh[pousr]_[A-Za-z0-9]{16,}|github_pat_\w{16,}|glpat-[\w-]{16,}"
            r"|sk-[\w-]{16,}|[sr]k_(live|test)_\w{10,}|A[KS]IA[A-Z0-9]{16}|xox[abeoprs]-[\w-]{10,}|AIza[\w-]{30,}"
            r"|ya29\.[\w-]{10,}|pypi-[\w-]{30,}|wandb_v\d_\w{16,}|eyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]*)"
        ),
        HIDDEN,
    ),
    (re.compile(r"(hooks\.slack\.com/services/|discord(app)?\.com/api/webhooks/)\S+"), rf"\1{HIDDEN}"),
)
HASHES = {"commit", "sha", "revision", "hash", "checksum", "digest", "fingerprint"}


def without_secrets(config: Any) -> Any:
    """The configuration with passwords, keys of accounts and the like replaced by asterisks.

    They are told by their key, such as api_key, token or password in any spelling, or by what they look like.
    """
    if isinstance(config, list | tuple):
        return [without_secrets(value) for value in config]
    if not isinstance(config, dict):
        return hidden_in(config) if isinstance(config, str) else config
    shown = {}
    for key, value in config.items():
        if value and not isinstance(value, bool) and _is_secret(str(key)):
            shown[key] = HIDDEN
        else:
            is_hash = isinstance(value, str) and HASHES & set(_words(str(key)))
            shown[key] = value if is_hash else without_secrets(value)
    return shown


def masked(arguments: list[str]) -> list[str]:
    """Words of a command line, to be shown, without the secrets among them."""
    shown: list[str] = []
    secret = False
    for word in arguments:
        option = word.startswith("-")
        key, equals, value = word.partition("=") if option else ("", "", word)
        secret = _is_secret(key) if option else secret
        shown.append(f"{key}{equals}{HIDDEN if secret and value else hidden_in(value)}")
        secret = secret and option and not equals  # then the next word is the value
    return shown


def without_typed_secrets(text: str, arguments: list[str]) -> str:
    """A message without what ``masked`` hides of a command line, and without what looks like a secret itself."""
    for word, shown in zip(arguments, masked(arguments), strict=True):
        value = word.partition("=")[2] if word.startswith("-") else word
        if shown != word and shown.endswith(HIDDEN) and len(value) > 3:
            text = text.replace(value, HIDDEN)
    return hidden_in(text)


def _words(key: str) -> list[str]:
    """The words in a key, in whatever way they are joined: x-api-key, apiKey, API_KEY."""
    parted = re.sub(r"([a-z0-9])([A-Z])|([A-Z])([A-Z][a-z])", r"\1\3_\2\4", key)
    return re.findall(r"[a-z]+", parted.lower())


def _is_secret(key: str) -> bool:
    words = _words(key)
    joined = [a + b for a, b in pairwise(words)]
    return any(map(SECRET.fullmatch, words + joined))


def hidden_in(text: str) -> str:
    """A text without the secrets in it."""
    if re.fullmatch(r"[0-9a-f]{40}", text):  # a key of W&B
        return HIDDEN
    for pattern, instead in IN_TEXT:
        text = pattern.sub(instead, text)
    for name in reversed(list(NAMED.finditer(text))):
        of_query = text[: name.start()].endswith(("?", "&")) and {*_words(name[1])[-1:]} & {"key", "sig", "signature"}
        if of_query or _is_secret(name[1]):
            text = text[: name.end()] + GIVEN.sub(HIDDEN, text[name.end() :])
    return text
