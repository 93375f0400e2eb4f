"""The page of tools/try_model.py, made with Gradio."""

from __future__ import annotations

import html
import itertools
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gradio as gr
from model_trial import NO_CONTEXT, ModelTrial, Seen, read_upload

from ion_d2.errors import IONError

logger = logging.getLogger(__name__)

# Sessions whose picture is remembered, calls that may wait, and the seconds that a picture is kept.
_SESSIONS, _WAITING, _KEPT = 16, 32, 3600
_CSS = """
p[role=alert] { border-left: 4px solid #d22; padding-left: .8em }
.classes table { width: 100% }
.classes :is(table, thead, tbody, tr, th, td) { border: 0 !important; padding: .3em .6em }
.classes tr { border-bottom: 1px solid #8884 !important }
.classes :is(th, td) { text-align: right }
.classes :is(th, td):first-child { text-align: left }
"""


class PageActions:
    """What happens on the page. A session's state is a number of its own and what was seen."""

    def __init__(self, trial: ModelTrial, max_pixels: float) -> None:
        """
        Args:
            trial: the model.
            max_pixels: of a picture that is taken.
        """
        self._trial, self._max_pixels = trial, max_pixels
        self._numbers = itertools.count(1)

    def detect(self, upload: dict[str, Any] | None, threshold: float) -> tuple[Any, ...]:
        """Run the model on a new picture: state, drawing, class table, choices, what went wrong.

        The picture comes as Gradio's file data, not decoded yet.
        """
        nothing = None, None, "", gr.Dropdown(choices=[], value=None)
        if upload is None:
            return *nothing, _told("")
        try:
            seen = self._trial.detect(read_upload(upload["path"], self._max_pixels))
        except Exception as error:  # of any kind: the next picture may do
            return *nothing, _told(_sentence(error))
        state = next(self._numbers), seen
        return state, *self.redraw(state, threshold, None), _told("")

    def redraw(
        self, state: tuple[int, Seen] | None, threshold: float, chosen: str | None
    ) -> tuple[Any, ...]:
        """Show what was found before with another threshold: drawing, class table, choices."""
        if state is None:
            return None, "", gr.Dropdown(choices=[], value=None)
        number, seen = state
        # With the number, so that the first detection of the next picture counts as another choice.
        keys = [f"{number}.{index}" for index in range(len(seen.above(threshold)))]
        choices = [(f"{i + 1}: {self._trial.name(seen, i)}", key) for i, key in enumerate(keys)]
        value = chosen if chosen in keys else next(iter(keys), None)
        shown = gr.Dropdown(choices=choices, value=value)
        return self._trial.draw(seen, threshold), self._trial.class_table(seen, threshold), shown

    def look(self, state: tuple[int, Seen] | None, chosen: str | None) -> tuple[Any, str]:
        """Show the context of the chosen detection: drawing and words."""
        number, _, index = (chosen or "").partition(".")
        if state is None or number != str(state[0]):
            return None, ""
        try:
            drawn, words = self._trial.draw_context(state[1], int(index))
        except Exception as error:  # as in detect
            drawn, words = None, _sentence(error)
        return drawn, html.escape(words)

    def choose(self, state: tuple[int, Seen] | None, threshold: float, event: gr.SelectData) -> Any:
        """Choose the detection that was clicked."""
        index = state and self._trial.pick(state[1], threshold, *event.index)
        return gr.skip() if state is None or index is None else f"{state[0]}.{index}"


def _told(text: str) -> gr.HTML:
    return gr.HTML(f'<p role="alert">{html.escape(text)}</p>', visible=bool(text))


def _sentence(error: Exception) -> str:
    if isinstance(error, IONError):
        return str(error)
    logger.error("The model failed on a picture.", exc_info=error)
    reason = " ".join(f"{type(error).__name__}: {error}".split())
    return f"The model failed on this picture ({reason}); the program's terminal tells more."


def build(
    trial: ModelTrial, examples: Sequence[Path], max_pixels: float, lowest: float
) -> gr.Blocks:
    """Lay out the page.

    Args:
        trial: the model.
        examples: pictures to offer.
        max_pixels: of a picture that is taken.
        lowest: score that the slider starts from.
    """
    actions = PageActions(trial, max_pixels)
    with gr.Blocks(analytics_enabled=False, title="Try a model", delete_cache=(600, _KEPT)) as page:
        names = html.escape(", ".join(trial.names))
        gr.HTML(f"<h1>Try a model</h1><p>It looks for: {names}.</p>")
        state, told = gr.State(time_to_live=_KEPT), gr.HTML(visible=False)
        with gr.Row():
            with gr.Column():
                upload = gr.Image(label="Picture", sources=["upload", "clipboard"], height=400)
                if examples:
                    gr.Examples([[str(path)] for path in examples], upload, examples_per_page=12)
            with gr.Column():
                drawn = _drawing("Detections")
                threshold = gr.Slider(lowest, 1, 0.5, step=0.01, label="Lowest score shown")
        with gr.Row():
            with gr.Column():
                classes = gr.HTML(elem_classes="classes")
                label = "Detection whose context is shown (choose it, or click its box)"
                chosen = gr.Dropdown([], label=label, visible=trial.has_context)
                words = gr.HTML("" if trial.has_context else NO_CONTEXT)
            with gr.Column(visible=trial.has_context):
                context = _drawing("What the context looks at")
        view = [drawn, classes, chosen]
        on_model = {"concurrency_id": "model", "concurrency_limit": 1}
        # Without Gradio's preprocessing, which decodes a picture before it can be checked.
        upload.change(
            actions.detect, [upload, threshold], [state, *view, told], preprocess=False, **on_model
        )
        threshold.change(actions.redraw, [state, threshold, chosen], view, show_progress="hidden")
        if trial.has_context:
            chosen.change(actions.look, [state, chosen], [context, words], **on_model)
            drawn.select(actions.choose, [state, threshold], chosen, show_progress="hidden")
    return page.queue(max_size=_WAITING, api_open=False)


def _drawing(label: str) -> gr.Image:
    # Not the button "share", which would send the picture to another site.
    buttons = ["download", "fullscreen"]
    return gr.Image(label=label, format="png", interactive=False, buttons=buttons)


def serve(page: gr.Blocks, host: str, port: int | None, max_bytes: int) -> str:
    """Start to serve a page, and return its address.

    Args:
        page: see :func:`build`.
        host: address to listen at.
        port: None for the first free one from 7860 on.
        max_bytes: of a file that is taken.

    Raises:
        IONError: the address cannot be used.
    """
    try:
        _, url, _ = page.launch(
            server_name=host, server_port=port, share=False, max_file_size=max_bytes,
            state_session_capacity=_SESSIONS, footer_links=[], enable_monitoring=False,
            ssr_mode=False, pwa=False, mcp_server=False, css=_CSS, quiet=True,
            prevent_thread_lock=True,
        )  # fmt: skip
    except (OSError, OverflowError, ValueError) as error:
        raise IONError(
            f"The page cannot be served at {host}, port {port or '7860 or above'} ({error}); give "
            "another --host or --port."
        ) from error
    return url
