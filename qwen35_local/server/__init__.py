"""The OpenAI- and Anthropic-compatible server on localhost. `README.md` here has the table of every field."""
