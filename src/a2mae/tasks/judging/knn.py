"""The kNN protocol of Scale-MAE (arXiv 2212.14532): cosine, k = 20, weights exp(similarity / 0.07), top-1."""

from __future__ import annotations

import torch
from torch import Tensor

TEMPERATURE = 0.07


def knn_predict(
    train_features: Tensor,
    train_labels: Tensor,
    features: Tensor,
    classes: int,
    *,
    k: int = 20,
    temperature: float = TEMPERATURE,
    chunk: int = 1024,
) -> Tensor:
    """Vote of the k nearest training samples.

    Args:
        train_features: `(M, D)`, any scale; normalised here.
        train_labels: `(M,)` int64.
        features: `(N, D)`.
        classes: K.
        k: Neighbours; at most M are used.
        temperature: Of the weights exp(similarity / temperature).
        chunk: Queries at a time: bounds the memory at `chunk * M` similarities.

    Returns:
        `(N,)` int64 classes.
    """
    bank = torch.nn.functional.normalize(train_features.float(), dim=1).T.contiguous()
    k = min(k, bank.shape[1])
    votes = []
    for query in torch.split(features, chunk):
        similarity = torch.nn.functional.normalize(query.float(), dim=1) @ bank
        top, index = similarity.topk(k, dim=1)
        weight = ((top - top[:, :1]) / temperature).exp()  # relative to the nearest: same vote, no overflow
        score = torch.zeros(len(query), classes, dtype=weight.dtype, device=weight.device)
        score.scatter_add_(1, train_labels[index], weight)
        votes.append(score.argmax(dim=1))
    return torch.cat(votes)
