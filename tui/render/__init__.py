"""From Markdown to lines of styled text. Values in, values out: nothing here knows an app or a screen."""
