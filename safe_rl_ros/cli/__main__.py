"""``python -m safe_rl_ros.cli``."""

from safe_rl_ros.cli import main

if __name__ == "__main__":
    main()
