"""Looks at what a server needs, and says what is wrong and what to change. Changes nothing, beside a server too."""
