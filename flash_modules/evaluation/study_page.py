"""The page that raters open: one question at a time; answers stay in the browser until they are saved."""

import json
from collections.abc import Mapping, Sequence
from typing import Any


def study_page(study: str, questions: Sequence[Mapping[str, Any]]) -> str:
    """An HTML page over files beside it. Questions have `id`, `picture`, `prompt` and `videos`."""
    data = json.dumps({"study": study, "questions": questions}, ensure_ascii=False)
    return _PAGE.replace("@DATA@", data.replace("<", "\\u003c"))


_PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>Which video is best?</title>
<style>
body { font: 16px/1.5 sans-serif; max-width: 1200px; margin: 1em auto; padding: 0 1em; }
main { display: flex; gap: 24px; align-items: flex-start; flex-wrap: wrap; }
#candidates { display: grid; grid-template-columns: repeat(auto-fill, minmax(220px, 1fr)); gap: 12px;
  flex: 1; }
figure { margin: 0; } img { width: 100%; } #picture { width: 260px; }
label { display: block; border: 3px solid #ccc; border-radius: 6px; padding: 6px; cursor: pointer; }
label:has(:checked) { border-color: #06c; } label:focus-within { outline: 2px solid #06c; }
button { font: inherit; padding: 6px 18px; } [hidden] { display: none !important; }
</style>
<h1>Which video is best?</h1>
<p>On the left you see a picture, on the right videos that begin with it. Please choose the one video that
(1) shows the described action best, correctly and smoothly, and (2) keeps the look of the picture.</p>
<p><progress id="progress" value="0"></progress> <span id="count"></span></p>
<section id="asking">
<p>Action: <b id="prompt"></b></p>
<main><figure><img id="picture" alt="the picture"></figure>
<div id="candidates" role="radiogroup" aria-label="videos"></div></main>
<p><button id="back">Back</button> <button id="next" disabled>Next</button></p>
</section>
<section id="done" hidden>
<p>Thank you. Please save your answers and send the file to whoever asked you.</p>
<p><button id="again">Back to the last question</button> <button id="save">Save answers</button></p>
</section>
<script type="application/json" id="data">@DATA@</script>
<script>
"use strict";
const { study, questions } = JSON.parse(document.getElementById("data").textContent);
const at = (id) => document.getElementById(id);
const place = "flash-study-" + study;
const state = restored();
function restored() {
  try {
    const kept = JSON.parse(localStorage.getItem(place));
    if (kept && kept.study === study && kept.answers) return kept;
  } catch (error) { /* the browser keeps nothing for this page, or it was spoiled: begin anew */ }
  const bytes = Array.from(crypto.getRandomValues(new Uint8Array(8)));
  const rater = bytes.map((byte) => byte.toString(16).padStart(2, "0")).join("");
  return { study, rater, answers: {}, place: 0 };
}
function keep() {
  try {
    localStorage.setItem(place, JSON.stringify(state));
  } catch (error) { /* private windows keep nothing */ }
}
function candidate(question, index) {
  const label = document.createElement("label");
  const radio = document.createElement("input");
  Object.assign(radio, { type: "radio", name: "choice", value: index });
  radio.checked = state.answers[question.id] === index;
  radio.addEventListener("change", () => {
    state.answers[question.id] = index;
    at("next").disabled = false;
    keep();
  });
  const video = Object.assign(document.createElement("img"), { src: question.videos[index], alt: "" });
  label.append(radio, " Video " + String.fromCharCode(65 + index), video);
  return label;
}
function show() {
  const question = questions[state.place];
  at("asking").hidden = !question;
  at("done").hidden = Boolean(question);
  at("progress").max = questions.length;
  at("progress").value = state.place;
  at("count").textContent = Math.min(state.place + 1, questions.length) + " of " + questions.length;
  if (!question) return;
  at("prompt").textContent = question.prompt;
  at("picture").src = question.picture;
  at("candidates").replaceChildren(...question.videos.map((_, index) => candidate(question, index)));
  at("next").disabled = !(question.id in state.answers);
  at("back").disabled = state.place === 0;
  for (const file of questions[state.place + 1]?.videos ?? []) new Image().src = file;
}
function go(step) { state.place += step; keep(); show(); }
at("next").addEventListener("click", () => go(1));
at("back").addEventListener("click", () => go(-1));
at("again").addEventListener("click", () => go(-1));
at("save").addEventListener("click", () => {
  const { rater, answers } = state;
  const file = new Blob([JSON.stringify({ study, rater, answers }, null, 1)], { type: "application/json" });
  const link = document.createElement("a");
  link.href = URL.createObjectURL(file);
  link.download = "answers-" + rater + ".json";
  link.click();
});
show();
</script>
</html>
"""
