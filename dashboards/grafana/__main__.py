"""Write every board into boards/."""

from dashboards.grafana.boards import BOARDS
from dashboards.grafana.parts import FOLDER, text

if __name__ == "__main__":
    for name, board in BOARDS.items():
        (FOLDER / f"{name}.json").write_text(text(board), encoding="utf-8")
