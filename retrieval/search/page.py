"""A page and a JSON API over an index."""

import socket
import threading
from html import escape
from pathlib import Path
from string import Template

from retrieval.search.commands import Searcher, ServeConfig, open_as_asked
from training.files.errors import DataError

SHOWN = 10  # hits, unless another number is asked for
MOST = 100
LONGEST = 1000  # characters of a question

PAGE = Template("""<!doctype html>
<html lang="zh"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>$title</title><link rel="icon" href="data:,">
<style>
 body { font: 16px/1.6 system-ui, "Noto Sans CJK SC", sans-serif; max-width: 46rem; margin: 3rem auto; padding: 0 1rem; color: #222; }
 form { display: flex; gap: .5rem } input[type=search] { flex: 1; font: inherit; padding: .5rem .7rem; border: 1px solid #999; border-radius: .4rem }
 input[type=number] { width: 4rem; font: inherit } button { font: inherit; padding: .5rem 1rem }
 ol { padding: 0; list-style: none } li { display: flex; gap: 1rem; padding: .5rem 0; border-bottom: 1px solid #eee }
 .score { color: #777; font-variant-numeric: tabular-nums } #said { color: #777 } .wrong { color: #b00020 !important }
</style>
<h1>$title</h1>
<form id="ask"><input type="search" id="q" placeholder="问题 / question" autofocus maxlength="$longest"><input type="number" id="k" value="$shown"
 min="1" max="$most" title="how many"><button>Search</button></form>
<p id="said">$count</p><ol id="hits"></ol>
<script>
const at = id => document.getElementById(id);
let latest = 0;
at("ask").addEventListener("submit", async event => {
  event.preventDefault();
  const q = at("q").value.trim(), mine = ++latest;
  if (!q) return;
  const begin = performance.now();
  let body, ok;
  try {
    const answer = await fetch("api/search?" + new URLSearchParams({ q, k: at("k").value }));
    body = await answer.json(); ok = answer.ok;
  } catch (error) { body = { detail: String(error) }; ok = false; }
  if (mine !== latest) return;
  at("said").classList.toggle("wrong", !ok);
  at("hits").replaceChildren();
  if (!ok) { at("said").textContent = typeof body.detail === "string" ? body.detail : body.detail.map(x => x.msg).join("; "); return; }
  at("said").textContent = body.hits.length + " hits, " + Math.round(performance.now() - begin) + " ms";
  for (const hit of body.hits) {
    const line = document.createElement("li"), score = document.createElement("span"), text = document.createElement("span");
    score.className = "score"; score.textContent = hit.score.toFixed(3); text.textContent = hit.text;
    line.append(score, text); at("hits").append(line);
  }
});
</script>
</html>
""")


def application(searcher: Searcher, title: str):
    """The web application (FastAPI): / is the page, /api/search the hits of a question as JSON, /docs describes it."""
    try:
        from fastapi import FastAPI, HTTPException, Query
        from fastapi.responses import HTMLResponse
    except ImportError:
        raise DataError("serve needs FastAPI and uvicorn: pip install fastapi uvicorn") from None
    page = PAGE.substitute(
        title=escape(title), count=f"{len(searcher.texts):,} texts", longest=LONGEST, shown=SHOWN, most=MOST
    )
    app, one_at_a_time = FastAPI(title=title), threading.Lock()

    @app.get("/", response_class=HTMLResponse)
    def start() -> str:
        return page

    @app.get("/api/search")
    def search(q: str = Query(min_length=1, max_length=LONGEST), k: int = Query(SHOWN, ge=1, le=MOST)) -> dict:
        try:
            with one_at_a_time:
                hits = searcher.search([q], k)[0]
        except DataError as error:
            raise HTTPException(422, str(error)) from None
        return {"question": q, "hits": [hit._asdict() for hit in hits]}

    return app


def serve(config: ServeConfig) -> None:
    """Serves until it is interrupted. Raises DataError, such as for a port that is taken."""
    try:
        import uvicorn
    except ImportError:
        raise DataError("serve needs FastAPI and uvicorn: pip install fastapi uvicorn") from None
    # Before anything is loaded: who asks meanwhile waits.
    family = socket.AF_INET6 if ":" in config.host else socket.AF_INET
    try:
        listening = socket.create_server((config.host, config.port), family=family)
    except OSError as error:
        raise DataError(f"{config.host}:{config.port}: {error.strerror}; give another --port or --host") from None
    with listening:
        searcher = open_as_asked(config)
        for length in (1, 20, 40, 80, 160, 320, LONGEST):  # compiles before the first question, for each length of rows
            searcher.search(["问" * length], SHOWN)
        print(f"http://{config.host}:{config.port}  (Ctrl-C ends it)", flush=True)
        app = application(searcher, Path(config.folder).absolute().name)
        uvicorn.Server(uvicorn.Config(app, log_level="warning")).run(sockets=[listening])
