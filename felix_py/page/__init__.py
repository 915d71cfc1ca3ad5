"""The page of an agent, and of a lab: topology, sessions, routes with their reasons and events, live in a browser.

Reading order: `tables` (what a page shows, and what has changed of it; pure), `rows` (the agent's objects as rows),
`of_agent` (gathers them), `feed` (one gatherer for all readers, at a bounded rate), `gate` (who may look; pure),
`server` (the paths), and `static/`, which the browser gets: HTML, CSS and ES modules as they stand there, no build.
"""
