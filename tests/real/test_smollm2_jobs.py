"""A job on a real model, on both engines."""

import llmlab


def test_a_job_answers_as_the_model_does(smol, smol_lab, tmp_path):
    rows = [{"country": "Peru"}, {"country": "Japan"}]
    prompt = "What is the capital of {{country}}?"
    job = llmlab.map(rows, prompt, model=smol, lab=smol_lab, output=tmp_path, temperature=0, max_tokens=10)
    alone = [smol.generate(prompt.replace("{{country}}", row["country"]), temperature=0, max_tokens=10) for row in rows]
    assert job.frame["text"].tolist() == [one.text for one in alone]
    assert "Lima" in job.frame["text"][0]
    again = llmlab.map(rows, prompt, model=smol, lab=smol_lab, output=tmp_path, temperature=0, max_tokens=10)
    assert again.computed == 0
