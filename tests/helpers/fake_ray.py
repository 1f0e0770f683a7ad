"""As much of Ray as RayWorkers needs, in one process; a call is made when it is collected."""

import random
from types import SimpleNamespace


class RayActorError(Exception):
    pass


class RayTaskError(Exception):
    def __init__(self, cause):
        self.cause = cause


class FakeRay:
    """A node whose actors die at some of their calls, as chance has it.

    Args: dying, how many of the calls.
    Attributes: living, the actors.
    """

    exceptions = SimpleNamespace(
        RayActorError=RayActorError, ObjectLostError=RayActorError, RayTaskError=RayTaskError
    )

    def __init__(self, dying=0.0, seed=0):
        self.living = []
        self._dying, self._rng = dying, random.Random(seed)

    def nodes(self):
        return [{"Alive": True, "Resources": {"CPU": 2.0}}]

    def remote(self, kind):
        return SimpleNamespace(options=lambda **_: SimpleNamespace(remote=self._start(kind)))

    def _start(self, kind):
        def start(*arguments):
            actor = SimpleNamespace(it=kind(*arguments))
            for name in ("load", "make"):
                call = SimpleNamespace(remote=lambda *given, n=name: FakeCall(actor, n, given))
                setattr(actor, name, call)
            self.living.append(actor)
            return actor

        return start

    def wait(self, calls, timeout):
        first = {id(call.actor): call for call in reversed(calls)}  # an actor keeps their order
        call = self._rng.choice([*first.values()])
        return [call], [other for other in calls if other is not call]

    def get(self, call):
        if self._rng.random() < self._dying:
            self.kill(call.actor)
        if call.actor not in self.living:
            raise RayActorError("The actor died")
        return getattr(call.actor.it, call.name)(*call.arguments)

    def kill(self, actor):
        self.living = [other for other in self.living if other is not actor]

    def shutdown(self):
        assert not self.living
        self.living = None


class FakeCall:
    def __init__(self, actor, name, arguments):
        self.actor, self.name, self.arguments = actor, name, arguments
