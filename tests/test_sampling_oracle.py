"""The distribution against the logits processors of transformers, in its order."""

from typing import Any

import numpy as np
import pytest

from qwen35_local.engine import NON_THINKING, THINKING, Sampling
from qwen35_local.sampling import Sampler

pytestmark = pytest.mark.oracle

RULES = [
    *(THINKING, NON_THINKING, Sampling(), Sampling(top_k=7), Sampling(top_p=0.7), Sampling(min_p=0.2)),
    Sampling(temperature=1.7, top_k=50, top_p=0.9, min_p=0.05, repetition_penalty=1.3),
    Sampling(repetition_penalty=0.7, logit_bias={3: 2.5, 5: -7.0}),
]


@pytest.mark.parametrize("rules", RULES)
@pytest.mark.parametrize("seed", range(20))
def test_distribution(rules: Sampling, seed: int):
    import torch  # pyright: ignore[reportMissingImports]
    from transformers import GenerationConfig  # pyright: ignore[reportMissingImports]
    from transformers.generation import logits_process as lp  # pyright: ignore[reportMissingImports]

    random = np.random.default_rng(seed)
    vocab, prompt = 300, random.integers(0, 300, 30)
    logits = (random.standard_normal(vocab) * 3).astype(np.float32)
    assert GenerationConfig().min_p is None  # this is the version whose order we follow

    processors: list[Any] = []
    if rules.logit_bias:
        processors.append(lp.SequenceBiasLogitsProcessor([[[token], bias] for token, bias in rules.logit_bias.items()]))
    if rules.repetition_penalty != 1:
        processors.append(lp.RepetitionPenaltyLogitsProcessor(rules.repetition_penalty))
    processors.append(lp.TemperatureLogitsWarper(float(rules.temperature)))
    if rules.top_k:
        processors.append(lp.TopKLogitsWarper(rules.top_k))
    if rules.top_p < 1:
        processors.append(lp.TopPLogitsWarper(rules.top_p))
    if rules.min_p:
        processors.append(lp.MinPLogitsWarper(rules.min_p))
    scores = torch.tensor(logits, dtype=torch.float64)[None]
    for processor in processors:
        scores = processor(torch.tensor(prompt)[None], scores)
    expected = torch.softmax(scores, -1)[0].numpy()

    sampler = Sampler(rules, prompt.tolist(), vocab)
    scores = logits.copy()
    sampler._penalise(scores)
    ids, weights = sampler._distribution(scores)
    actual = np.zeros(vocab)
    actual[slice(None) if ids is None else ids] = weights / weights.sum(dtype=np.float64)
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-12)
