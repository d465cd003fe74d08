"""The generated pages of docs/reference/, by file name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from tools.docs.api import api_page
from tools.docs.commands import commands_page
from tools.docs.configuration import configuration_page
from tools.docs.messages import messages_page
from tools.docs.methods import methods_page

PAGES: Final[Mapping[str, Callable[[], str]]] = {
    "commands.md": commands_page,
    "configuration.md": configuration_page,
    "messages.md": messages_page,
    "methods.md": methods_page,
    "python.md": api_page,
}
