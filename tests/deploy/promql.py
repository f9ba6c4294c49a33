"""What a PromQL expression asks for: metrics with the labels that it expects of them."""

import promql_parser as promql

# What dashboards leave to Grafana, as Grafana would fill it in. In a test that is seconds old, the
# steps of subqueries are seconds, too.
FILLED = {
    "$__rate_interval": "20s",
    "$__range": "5m",
    "$namespace": ".*",
    "$upstream": ".*",
    "$instance": ".*",
    ":1m]": ":1s]",
}


def filled(expr: str) -> str:
    for name, value in FILLED.items():
        expr = expr.replace(name, value)
    assert "$" not in expr, f"a variable that nobody fills: {expr}"
    return expr


def metrics(expr: str) -> dict[str, set[str]]:
    """Each metric in it with the labels that it is matched, grouped or joined by."""
    found: dict[str, set[str]] = {}
    _walk(promql.parse(expr), frozenset(), found)
    return found


def _walk(node, labels: frozenset[str], found: dict[str, set[str]]) -> None:
    match node:
        case promql.AggregateExpr():
            by = node.modifier
            inner = labels
            if by is not None:
                grouped = by.type == promql.AggModifierType.By
                # What is grouped away cannot be asked for outside, so only these go further in.
                inner = frozenset(by.labels) if grouped else labels | frozenset(by.labels)
            _walk(node.expr, inner, found)
        case promql.BinaryExpr():
            matching = node.modifier and node.modifier.matching
            joined = labels | frozenset(matching.labels if matching else ())
            _walk(node.lhs, joined, found)
            _walk(node.rhs, joined, found)
        case promql.Call():
            for argument in node.args:
                _walk(argument, labels, found)
        case promql.MatrixSelector():
            _walk(node.vector_selector, labels, found)
        case promql.VectorSelector():
            if node.name:
                matched = {matcher.name for matcher in node.matchers.matchers}
                found.setdefault(node.name, set()).update(labels | matched)
        case promql.NumberLiteral() | promql.StringLiteral():
            pass
        case _:
            _walk(node.expr, labels, found)
