"""The slash commands in Textual's command palette."""

from collections.abc import AsyncIterator

from textual.command import DiscoveryHit, Hit, Hits, Provider

from .slash import COMMANDS, Command


class SlashProvider(Provider):
    """Every slash command that needs no argument to be useful."""

    def _run(self, command: Command):
        return lambda: self.app.chat.verbs.run(command.name, "")  # type: ignore[attr-defined]

    async def discover(self) -> AsyncIterator[DiscoveryHit]:
        for command in COMMANDS:
            yield DiscoveryHit(f"/{command.name}", self._run(command), help=command.help)

    async def search(self, query: str) -> Hits:
        matcher = self.matcher(query)
        for command in COMMANDS:
            if (score := matcher.match(f"{command.name} {command.help}")) > 0:
                yield Hit(score, f"/{command.name}", self._run(command), help=command.help)
