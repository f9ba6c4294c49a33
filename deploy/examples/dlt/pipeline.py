"""Issues of a repository into DuckDB, by dlt: `forbear run -c config.toml -- python pipeline.py`.

`base_url` is the one change for forbear; .dlt/config.toml switches dlt's own repeats off.
"""

import os
from typing import Any

import dlt
from dlt.sources.rest_api import rest_api_source

GITHUB = os.environ.get("FORBEAR_URL", "http://localhost:8080") + "/github"


def issues(base_url: str = GITHUB, repository: str = "dlt-hub/dlt") -> Any:
    """The source, as it was before but for `base_url`."""
    return rest_api_source(
        {
            "client": {
                "base_url": base_url,
                "paginator": {"type": "page_number", "base_page": 1, "total_path": None},
            },
            "resources": [
                {
                    "name": "issues",
                    "primary_key": "id",
                    "write_disposition": "merge",
                    "endpoint": {"path": f"repos/{repository}/issues", "params": {"state": "all", "per_page": 100}},
                }
            ],
        }
    )


if __name__ == "__main__":
    print(dlt.pipeline("issues", destination="duckdb", dataset_name="github").run(issues()))
