"""A lifecycle node that survives whatever its lifecycle services are asked."""

from __future__ import annotations

from typing import Any

from rclpy.lifecycle import LifecycleNode


class RobustLifecycleNode(LifecycleNode):
    """A :class:`LifecycleNode` that refuses an illegal transition instead of dying of it."""

    def __init__(self, node_name: str, **kwargs: Any) -> None:
        """Create the node and guard its ``change_state`` service.

        Trap: on Jazzy (rclpy 7.1.6) a request for a transition that the present state does not have raises
        RCLError inside the service callback, which takes down the executor and with it the node; one wrong call
        from anywhere would silence the filter. Kilted answers ``success=False``, and so does this. The state
        machine itself is untouched by a refused transition.
        """
        super().__init__(node_name, **kwargs)
        service = self._service_change_state
        inner = service.callback

        def change_state(request: Any, response: Any) -> Any:
            try:
                return inner(request, response)
            except Exception as error:  # whatever rclpy raises here must not end the process
                wanted = request.transition.label or request.transition.id
                self.get_logger().error(f"transition {wanted!r} refused in state {self.lifecycle_state}: {error}")
                response.success = False
                return response

        service.callback = change_state

    @property
    def lifecycle_state(self) -> str:
        """The label of the present primary state, e.g. ``active``."""
        return str(self._state_machine.current_state[1])
