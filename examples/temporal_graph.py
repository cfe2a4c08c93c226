"""Link prediction in a temporal graph: the events of each node are a sequence with times.

A user comes back to the same item after a short time, and goes on to the next one after a long
time. The baseline predicts the item that was seen last. A layer reads, at the time of an event, the
item of the event before it, which has been there since then. The step of its state is the time
between the two, or that time up to a learned limit, or no time at all.
"""

import matplotlib.pyplot as plt
import torch
from torch import nn
from torch.nn import functional as F

from longstate.layers import S5, Timed, intervals

USERS, ITEMS, EVENTS, WIDTH = 50, 12, 3000, 32
torch.manual_seed(0)


def generated_graph():
    """Events in the order of time: user, item, time, each (EVENTS)."""
    item, last = torch.randint(ITEMS, (USERS,)), torch.zeros(USERS)
    ready = torch.zeros(USERS)  # when each user comes next
    users, items, times = [], [], []
    for _ in range(EVENTS):
        user = int(ready.argmin())
        now = ready[user].clone()
        item[user] = (item[user] + int(now - last[user] > 1)) % ITEMS
        users.append(user), items.append(int(item[user])), times.append(float(now))
        last[user] = now
        mean = 0.4 if torch.rand(()) < 0.5 else 2.5
        ready[user] = now + mean * (0.5 + torch.rand(()))
    return torch.tensor(users), torch.tensor(items), torch.tensor(times)


def per_node(nodes, others, times):
    """One row for each node: its partners (n, t), their times (n, t), and where there are any."""
    longest = int(nodes.bincount().max())
    partners = torch.zeros(USERS, longest, dtype=torch.long)
    when, there = torch.zeros(USERS, longest), torch.zeros(USERS, longest, dtype=torch.bool)
    for node in range(USERS):
        mine = nodes == node
        count = int(mine.sum())
        partners[node, :count], when[node, :count] = others[mine], times[mine]
        when[node, count:] = times[mine][-1]
        there[node, :count] = True
    return partners, when, there


class LinkPredictor(nn.Module):
    def __init__(self, step):
        super().__init__()
        self.embed = nn.Embedding(ITEMS + 1, WIDTH)  # the last row is no item
        self.layer = Timed(S5(WIDTH, d_state=32), step=step)
        self.score = nn.Sequential(nn.Linear(WIDTH, 64), nn.GELU(), nn.Linear(64, ITEMS))

    def forward(self, partners, when, there):
        """Scores (n, t, ITEMS) of each event, from earlier events and its own time."""
        before = F.pad(partners[:, :-1], (1, 0), value=ITEMS)
        y, _ = self.layer(self.embed(before), dt=intervals(when, unit=1.0), mask=there)
        return self.score(y)


partners, when, there = per_node(*generated_graph())
later = there & (when > 0.7 * when.max())
earlier = there & ~later
later[:, 0] = earlier[:, 0] = False  # nothing is known before the first event
right = {"last seen": (partners.roll(1, 1) == partners)[later].double().mean()}
for name, step in (("no time", "constant"), ("time", "linear"), ("time, limited", "saturating")):
    model = LinkPredictor(step)
    optimiser = torch.optim.Adam(model.parameters(), 5e-3)
    for _ in range(150):
        loss = F.cross_entropy(model(partners, when, there)[earlier], partners[earlier])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    with torch.no_grad():
        found = model(partners, when, there).argmax(-1)
    right[name] = (found == partners)[later].double().mean()

print(f"{EVENTS} events of {USERS} users and {ITEMS} items; the last 30 % of the time are tested")
for name, share in right.items():
    print(f"{name:14} {100 * float(share):5.1f} % of the links are predicted")

figure, axis = plt.subplots(figsize=(6, 2.5), layout="constrained")
axis.barh(list(right), [100 * float(share) for share in right.values()])
axis.invert_yaxis()
axis.set_xlabel("links predicted, percent")
figure.savefig("temporal_graph.svg")
