"""Many convex problems of the same shape minimised side by side, by L-BFGS."""

from collections import deque
from dataclasses import dataclass, fields
from typing import Protocol

import torch
from torch import Tensor

MEMORY = 10  # pairs of steps and changes of the gradient
SUFFICIENT = 1e-4  # Armijo's constant: the share of the promised decrease that a step must bring
SMALLEST_STEP = 1e-10  # shorter ones mean that rounding hides any further decrease
FLOOR = 1e-6  # a value below this is known well enough when it is known to the tolerance of this: far above rounding


class Objective(Protocol):
    """Convex functions of ``(outputs, width)`` numbers each, never negative, evaluated together."""

    def evaluate(self, points: Tensor, which: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Evaluates some of the functions.

        Args:
            points: ``(n, outputs, width)``.
            which: Whose points they are, ``(n,)``.

        Returns:
            Values ``(n,)``, gradients ``(n, outputs, width)`` and anything ``(n, ...)`` that `precondition` wants.
        """
        ...

    def precondition(self, gradients: Tensor, curvatures: Tensor, which: Tensor) -> Tensor:
        """Multiplies by a positive definite guess at the inverse Hessians.

        Args:
            gradients: ``(..., n, outputs, width)``.
            curvatures: What `evaluate` gave of the same problems.
            which: The problems to evaluate; see `evaluate`.
        """
        ...


@dataclass(frozen=True)
class Minima:
    """Where several functions are least.

    Attributes:
        points: ``(n, outputs, width)``.
        values: ``(n,)``.
        iterations: Evaluations until each had converged, ``(n,)`` int64.
        converged: Whether it had, ``(n,)`` bool.
    """

    points: Tensor
    values: Tensor
    iterations: Tensor
    converged: Tensor


@dataclass
class _State:
    """The problems that are still open; each field has one entry for each of them."""

    which: Tensor
    points: Tensor
    values: Tensor
    gradients: Tensor
    curvatures: Tensor
    directions: Tensor
    slopes: Tensor
    steps: Tensor

    def only(self, mask: Tensor) -> "_State":
        return _State(*(getattr(self, field.name)[mask] for field in fields(self)))


@dataclass(frozen=True)
class _Pair:
    """A step, what it changed in the gradient, and 1 / their product (0 where there was no step)."""

    step: Tensor
    change: Tensor
    inverse: Tensor

    def only(self, mask: Tensor) -> "_Pair":
        return _Pair(self.step[mask], self.change[mask], self.inverse[mask])


def minimise(objective: Objective, start: Tensor, *, tolerance: float, limit: int = 1000) -> Minima:
    """Minimises all functions of an objective; those that have converged leave the batch.

    Each function has its own steps, memory and line search (backtracking with quadratic interpolation); they only share
    the passes over the data (Nocedal and Wright 2006, algorithm 7.4, but the first Hessian is preconditioned).

    Args:
        objective: The functions.
        start: Where each begins, ``(n, outputs, width)`` float64.
        tolerance: A function has converged when half the slope along its next step, which is what the step would gain
            if the function were quadratic, is this share of its value; it never gains more than the value itself.
        limit: The largest number of evaluations.

    Returns:
        The best point found for each.
    """
    count = len(start)
    result = Minima(
        start.clone(),
        start.new_zeros(count),
        torch.zeros(count, dtype=torch.int64),
        torch.zeros(count, dtype=torch.bool),
    )
    which = torch.arange(count)
    values, gradients, curvatures = objective.evaluate(start, which)
    steps = torch.ones_like(values)
    state = _State(
        which, start, values, gradients, curvatures, torch.zeros_like(start), torch.zeros_like(values), steps
    )
    pairs: deque[_Pair] = deque(maxlen=MEMORY)
    _turn(state, objective, pairs)
    for iteration in range(1, limit + 1):
        # A slope may point upwards by rounding in the guess at the Hessian; below 0 nothing can fall in any case.
        gains = torch.where(state.slopes <= 0, -0.5 * state.slopes, torch.inf).minimum(state.values)
        converged = gains <= tolerance * state.values.clamp(min=FLOOR)
        over = converged | (state.steps < SMALLEST_STEP) | torch.tensor(iteration == limit)
        if over.any():
            ended = state.which[over]
            result.points[ended], result.values[ended] = state.points[over], state.values[over]
            result.iterations[ended], result.converged[ended] = iteration, converged[over]
            state = state.only(~over)
            pairs = deque((pair.only(~over) for pair in pairs), maxlen=MEMORY)
        if not len(state.which):
            break
        state = _advance(state, objective, pairs)
    return result


def _advance(state: _State, objective: Objective, pairs: deque[_Pair]) -> _State:
    """Tries one step in each problem; where it was too long, the next one goes the same way, but shorter."""
    points = state.points + _per_problem(state.steps) * state.directions
    values, gradients, curvatures = objective.evaluate(points, state.which)
    promised = state.steps * state.slopes
    rounding = 4 * torch.finfo(values.dtype).eps * state.values.abs()
    good = values <= state.values + SUFFICIENT * promised + rounding
    step, change = points - state.points, gradients - state.gradients
    product = _dot(step, change)
    useful = good & (product > torch.finfo(values.dtype).tiny)
    if useful.any():
        pairs.append(_Pair(step, change, torch.where(useful, 1 / torch.where(useful, product, 1), 0)))
    best = -promised * state.steps / (2 * (values - state.values - promised))
    shorter = torch.where(best.isfinite(), best, 0).clamp(min=0.1 * state.steps, max=0.5 * state.steps)
    new = _State(
        state.which,
        torch.where(_per_problem(good), points, state.points),
        torch.where(good, values, state.values),
        torch.where(_per_problem(good), gradients, state.gradients),
        torch.where(_per_problem(good), curvatures, state.curvatures),
        state.directions,
        state.slopes,
        torch.where(good, 1, shorter),
    )
    if good.any():
        _turn(new, objective, pairs, only=good)
    return new


def _turn(state: _State, objective: Objective, pairs: deque[_Pair], *, only: Tensor | None = None) -> None:
    """Gives the problems new directions: the two loops of L-BFGS."""
    vector = state.gradients.clone()
    shares = []
    for pair in reversed(pairs):
        share = pair.inverse * _dot(pair.step, vector)
        vector -= _per_problem(share) * pair.change
        shares.append(share)
    if pairs:
        # Both at once: the guess at the Hessian is so large that reading it is most of the work.
        last = pairs[-1]
        vector, change = objective.precondition(torch.stack([vector, last.change]), state.curvatures, state.which)
        # The last step says how much too steep or too flat the guess is.
        product = last.inverse * _dot(last.change, change)
        vector = vector * _per_problem(torch.where(product > 0, 1 / product, 1))
    else:
        vector = objective.precondition(vector, state.curvatures, state.which)
    for pair, share in zip(pairs, reversed(shares), strict=True):
        back = pair.inverse * _dot(pair.change, vector)
        vector += _per_problem(share - back) * pair.step
    turned = torch.ones_like(state.values, dtype=torch.bool) if only is None else only
    state.directions = torch.where(_per_problem(turned), -vector, state.directions)
    state.slopes = torch.where(turned, -_dot(state.gradients, vector), state.slopes)


def _dot(one: Tensor, other: Tensor) -> Tensor:
    return (one * other).sum(dim=(1, 2))


def _per_problem(values: Tensor) -> Tensor:
    return values[:, None, None]
