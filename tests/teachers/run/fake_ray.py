"""As much of Ray as the engine uses, in one thread: actors do their work when somebody waits for it."""

from types import SimpleNamespace


class RayError(Exception):
    """As `ray.exceptions.RayError`."""


class RayTaskError(RayError):
    """As `ray.exceptions.RayTaskError`: what the task raised is its `cause`."""

    def __init__(self, cause: Exception) -> None:
        super().__init__(f"{type(cause).__name__}: {cause}")
        self.cause = cause


class Death(BaseException):
    """Raised inside an actor's method, it kills the actor."""


class Actor:
    """A worker that may die."""

    def __init__(self, worker) -> None:
        self.alive = True
        for name in ("start", "make"):
            setattr(self, name, SimpleNamespace(remote=self._ask(getattr(worker, name))))

    def _ask(self, method):
        return lambda *given: Ref(self, lambda: method(*given))


class Ref:
    """An answer that may not be there yet."""

    def __init__(self, actor: Actor, work) -> None:
        self.actor, self._work, self.value, self.error, self.ended = actor, work, None, None, False

    def end(self) -> None:
        if self.ended:
            return
        self.ended = True
        if not self.actor.alive:
            self.error = RayError("the actor died")
            return
        try:
            self.value = self._work()
        except Death:
            self.actor.alive = False
            self.error = RayError("the actor died")
        except Exception as error:
            self.error = RayTaskError(error)


class FakeRay:
    """A cluster of machines with so many CPUs each."""

    exceptions = SimpleNamespace(RayError=RayError, RayTaskError=RayTaskError)

    def __init__(self, *cpus: int) -> None:
        self.cpus = list(cpus)
        self.actors: list[Actor] = []

    def put(self, value):
        return value

    def nodes(self):
        return [{"Alive": True, "Resources": {"CPU": count}} for count in self.cpus]

    def cluster_resources(self):
        return {"CPU": sum(self.cpus)}

    def remote(self, kind):
        def hire():
            self.actors.append(Actor(kind()))
            return self.actors[-1]

        return SimpleNamespace(options=lambda **options: SimpleNamespace(remote=hire))

    def wait(self, refs, num_returns, timeout):
        if timeout:
            next((ref for ref in refs if not ref.ended), refs[0]).end()
        return [ref for ref in refs if ref.ended or not ref.actor.alive], []

    def get(self, ref):
        ref.end()
        if ref.error is not None:
            raise ref.error
        return ref.value

    def kill(self, actor):
        actor.alive = False
