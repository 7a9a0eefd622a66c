"""A naive sequential model of the base protocol (protocol part A), written from its text alone.

It is the second opinion: plain dictionaries, obvious code, no thought for speed, and nothing shared
with the machine, the engine, the stores or the validation that it is compared with. Error texts are
not modelled; a refusal's data is a string, and that is all.

Readings. Where the text leaves a choice, this is what the model does, and why:

1. `promise.create` with a `resonate:delay` in the past: the task is due now, never earlier.
2. `task.create` that answers a fulfilled task, born so or found so, has an empty preload: it is "the
   children of the acquired task", and none is acquired.
3. `task.fence` answers the children of the fenced task as its preload, as they are after the action.
4. `task.fence`: an action is malformed (outer 400) when it is not an object, has another kind, no
   data object or no valid id. Everything else that promise.create or promise.settle would refuse
   with 400 is the inner status.
5. `task.suspend`: a lost lease (409) is reported before an awaited that is missing or internal (422).
6. `task.suspend` that answers 300 registers nothing, and looks at the awaited promises only: resumes
   that came while the task was acquired do not make it a 300.
7. `promise.register_callback` and `register_listener` on an internal promise are 422 even when it is
   settled: existence and kind are checked before state.
8. `task.halt`, `task.continue` and `task.release` keep the resumes (only a dispatch or a suspension
   clears them, `consistent_task_resumes_cleared_only_on_dispatch_or_park`).
9. `task.heartbeat`: "still live" speaks of the promise. A lease that has expired but was not reaped
   still holds, so it is extended.
10. A timer's task, and one whose target is a queue, keeps its `retryAt`: no step is ever due for it.
    The snapshot lists it, as a pending task has a retry time.
11. A task of a timer may be acquired by id; only dispatch and claim are ruled out.
12. A fired promise's `resonate:origin`, `resonate:branch` and `resonate:parent` are its own id (it is
    the root of a tree); the four tags replace any of the same name.
13. A fired promise's task is due at its instant, as the whole creation is "as of its instant".
14. `schedule.search` compares `tags` with `promiseTags`, the only tags a schedule has.
15. A search answers a cursor exactly when more records match.
16. `debug.snap` is projected throughout: no promise timeout for a promise past its deadline, no task
    timeout for its task. Callbacks and listeners are those stored. Schedules are not part of it.
17. `debug.start`, `debug.stop` and `debug.reset` answer `{}`; reset leaves the pause as it is.
18. Requests store no settlement by deadline by themselves, step 1 does. A store that stores what it
    shows differs only in callbacks and listeners drained earlier; `Model.overdue_edges` says when.
19. Not modelled, because the text does not decide: null for an optional field, numbers beyond
    9007199254740991, fields that the kind does not know, cursors that no search answered, the
    greatest length of a pid. Not asked either, because installed clients go beyond the text:
    deadlines with a fraction, and `resonate:scope` = `"global"` as another way to be external.
"""

from kept.check.model.model import VERSION, Model

__all__ = ["VERSION", "Model"]
