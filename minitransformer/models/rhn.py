"""A recurrent highway network language model, as a stack of K members (Zilly et al. 2017, §4; Hestness et al. 2017, §4.2).

Between a token and the next the state s passes n_layer micro-steps, each with weights of its own:

    s ← h t + s (1 - t)    h = tanh(W_H x + R_H s + b_H)    t = sigmoid(W_T x + R_T s + b_T)

The token x enters the first micro-step only, and the carry gate is 1 - t, as in the paper's experiments.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .layers import Dropout, Embedding, Linear


class Step(nn.Module):
    """The weights of one micro-step; h and t come from one product.

    b_T starts between -2 and -4, the values of the authors' code for words and for characters: a gate that starts at 0.12 forgets
    within a token and learns fast, one at 0.02 hands gradients back over tens of tokens.
    """

    def __init__(self, K: int, width: int):
        super().__init__()
        self.recurrent = Linear(K, width, 2 * width)
        self.bias = nn.Parameter(torch.cat([torch.zeros(width), torch.linspace(-2, -4, width)]).repeat(K, 1, 1))


class Recurrence(torch.autograd.Function):
    """All micro-steps of all tokens, with gradients written out: a tape of small operations would take twice the time."""

    @staticmethod
    def forward(ctx, first: Tensor, biases: Tensor, *recurrent: Tensor) -> Tensor:
        """first (K, B, T, 2 width), W x + b of the first micro-step; biases (n_layer, K, 1, 2 width); recurrent, of each (K, width,
        2 width) -> states after each token (K, B, T, width)."""
        depth, (K, B, T, _), width = len(recurrent), first.shape, recurrent[0].shape[1]
        s = first.new_zeros(T * depth + 1, K, B, width)
        h, t = torch.empty_like(s[1:]), torch.empty_like(s[1:])
        tokens, rest, states, hs, ts = first.unbind(2), biases.unbind(0), s.unbind(0), h.unbind(0), t.unbind(0)
        for i in range(T * depth):
            layer = i % depth
            pre = torch.baddbmm(rest[layer] if layer else tokens[i // depth], states[i], recurrent[layer])
            torch.tanh(pre[..., :width], out=hs[i])
            torch.sigmoid(pre[..., width:], out=ts[i])
            torch.lerp(states[i], hs[i], ts[i], out=states[i + 1])
        ctx.save_for_backward(s, h, t, *recurrent)
        return s[depth::depth].permute(1, 2, 0, 3).contiguous()

    @staticmethod
    def backward(ctx, over: Tensor):
        s, h, t, *recurrent = ctx.saved_tensors
        depth, (n, K, B, width) = len(recurrent), h.shape
        back, backs = h.new_empty(n, K, B, 2 * width), [R.transpose(1, 2) for R in recurrent]
        ds = over.new_zeros(K, B, width)
        for token in reversed(range(n // depth)):  # by the token, so that its arrays stay in a core's cache
            ds = ds + over[:, :, token]
            of_token = slice(token * depth, (token + 1) * depth)
            x, y, before = h[of_token], t[of_token], s[of_token]
            stays = 1 - y
            slopes = torch.cat([(1 - x * x) * y, (x - before) * y * stays], dim=-1).unbind(0)  # of a state in the product behind h and t
            for slope, stay, R, out in zip(*map(reversed, (slopes, stays.unbind(0), backs, back[of_token].unbind(0)))):
                torch.mul(slope, torch.cat([ds, ds], dim=-1), out=out)
                ds = torch.baddbmm(ds * stay, out, R)
        back = back.unflatten(0, (-1, depth)).permute(1, 2, 0, 3, 4)        # (depth, K, T, B, 2 width)
        before = s[:-1].unflatten(0, (-1, depth)).permute(1, 2, 0, 3, 4).flatten(2, 3)
        weights = torch.matmul(before.transpose(-1, -2), back.flatten(2, 3))
        biases = back.sum(dim=(2, 3)).unsqueeze(2)
        biases[0] = 0                                                       # the first is in `first`
        return back[0].transpose(1, 2), biases, *weights.unbind(0)


class RHN(nn.Module):
    """K recurrent highway networks of one shape. Tokens (K, B, T) -> logits (K, B, T, vocab_size).

    The input's matrix has gain 2: embeddings have standard deviation 0.5, so W x starts at unit variance.
    """

    def __init__(self, K: int, vocab_size: int, n_layer: int, d_model: int, tie_embeddings: bool = False, dropout: float = 0.0):
        super().__init__()
        self.token = Embedding(K, vocab_size, d_model, std=0.5)
        self.input = Linear(K, d_model, 2 * d_model, gain=2.0)
        self.steps = nn.ModuleList(Step(K, d_model) for _ in range(n_layer))
        self.drop_input, self.drop_output = Dropout(dropout), Dropout(dropout)
        self.head = None if tie_embeddings else Linear(K, d_model, vocab_size)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.drop_input(self.token(tokens))
        first = self.input(x) + self.steps[0].bias[:, None]
        with torch.autocast(x.device.type, enabled=False):
            weights = [step.recurrent.weight for step in self.steps]
            states = Recurrence.apply(first.to(weights[0].dtype), torch.stack([step.bias for step in self.steps]), *weights)
        x = self.drop_output(states)
        if self.head is not None:
            return self.head(x)
        return torch.einsum("kbtd,kvd->kbtv", x, self.token.weight) * x.shape[-1] ** -0.5
