"""The example project: orders that are placed and paid once, whatever is sent twice."""
