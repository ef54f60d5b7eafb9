"""First and second derivatives of each image's loss, in evaluation mode, where images do not influence one another."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import torch
from torch.nn import functional as F

from rna_ray.networks.build import Network
from rna_ray.networks.paths import following

Classifier = Callable[[torch.Tensor], torch.Tensor]
"""Images (N, C, H, W) in, logits (N, classes) out."""


def along(network: Network, path: torch.Tensor) -> Classifier:
    """Return a network as a classifier along one path (L,) for all images, or along a path for each (N, L)."""

    def classify(x: torch.Tensor) -> torch.Tensor:
        with following(network, path, shared=path.dim() == 1):
            return network(x)

    return classify


@dataclasses.dataclass(frozen=True)
class AtInput:
    """A loss at an image and how it changes there; the cross-entropy, over [0, 1] pixels."""

    loss: torch.Tensor
    """(N,)"""
    gradient: torch.Tensor
    """(N, C, H, W)"""
    curvature: torch.Tensor
    """(N,): g'ᵀHg' in the direction g' of the gradient, the "effective" smoothness (RNA, Section 3.2); 0 where the
    gradient is zero."""

    @property
    def gradient_norm(self) -> torch.Tensor:
        """Return the ℓ2 norm (N,) of the gradient."""
        return self.gradient.flatten(1).norm(dim=1)


def at_input(classify: Classifier, x: torch.Tensor, y: torch.Tensor) -> AtInput:
    """Return the loss of images x (N, C, H, W) on classes y (N,), its gradient, and its curvature along the gradient.

    The curvature is a Hessian-vector product by a second backward pass. Piecewise-linear activations have none of their
    own: what is measured comes from the softmax and from norms that take an example's own statistics.
    """
    x = x.detach().requires_grad_()
    loss = F.cross_entropy(classify(x), y, reduction="none")
    (gradient,) = torch.autograd.grad(loss.sum(), x, create_graph=True)
    direction = directed(gradient)
    return AtInput(loss.detach(), gradient.detach(), quadratic(gradient, x, direction, keep=False))


def gradient(classify: Classifier, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Return the gradient (N, C, H, W) of each image's cross-entropy on its class y (N,)."""
    x = x.detach().requires_grad_()
    return torch.autograd.grad(F.cross_entropy(classify(x), y, reduction="sum"), x)[0]


def quadratic(gradient: torch.Tensor, at: torch.Tensor, direction: torch.Tensor, *, keep: bool = True) -> torch.Tensor:
    """Return dᵀHd (N,) for each image, from its gradient, differentiable, at a tensor and a constant direction d."""
    (product,) = torch.autograd.grad((gradient * direction).sum(), at, retain_graph=keep)
    return (product * direction).flatten(1).sum(1)


def directed(vectors: torch.Tensor) -> torch.Tensor:
    """Return each image's vector (N, …) at length 1, detached; a zero stays zero."""
    vectors = vectors.detach()
    length = vectors.flatten(1).norm(dim=1)
    return vectors / torch.where(length == 0, 1.0, length).view(-1, *[1] * (vectors.dim() - 1))
