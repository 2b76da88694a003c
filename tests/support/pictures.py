"""What is asked of every picture, and of tables."""


def rows_of(table):
    """Rows as dictionaries by column."""
    return [dict(zip(table.columns, row)) for row in table.rows]


def assert_text_fits(figure):
    """No panel's text leaves the drawn figure, and no legend covers a panel or a third of the figure."""
    width, height = figure.canvas.get_width_height()
    for axes in figure.axes:
        box = axes.get_tightbbox()
        assert box.x0 >= -1 and box.x1 <= width + 1 and box.y0 >= -1 and box.y1 <= height + 1
    for legend in figure.legends:
        own = legend.get_window_extent()
        assert own.width * own.height < width * height / 3
        assert not any(own.overlaps(axes.get_tightbbox()) for axes in figure.axes if axes.get_visible())
