"""A declarative source of airbyte-cdk, read once: `airbyte.py BASE_URL` prints the names as JSON.

The manifest is what a user writes in the connector builder; `url_base` is the only thing that knows of forbear.
"""

import json
import sys

from airbyte_cdk.models import (
    ConfiguredAirbyteCatalog,
    ConfiguredAirbyteStream,
    DestinationSyncMode,
    SyncMode,
    Type,
)
from airbyte_cdk.sources.declarative.concurrent_declarative_source import ConcurrentDeclarativeSource

MANIFEST = {
    "version": "6.0.0",
    "type": "DeclarativeSource",
    "check": {"type": "CheckStream", "stream_names": ["orders"]},
    "streams": [
        {
            "type": "DeclarativeStream",
            "name": "orders",
            "primary_key": ["id"],
            "schema_loader": {
                "type": "InlineSchemaLoader",
                "schema": {"type": "object", "properties": {"id": {"type": "integer"}, "name": {"type": "string"}}},
            },
            "retriever": {
                "type": "SimpleRetriever",
                "requester": {
                    "type": "HttpRequester",
                    "url_base": "{{ config['base_url'] }}",
                    "path": "/orders",
                    "http_method": "GET",
                },
                "record_selector": {
                    "type": "RecordSelector",
                    "extractor": {"type": "DpathExtractor", "field_path": ["orders"]},
                },
                "paginator": {
                    "type": "DefaultPaginator",
                    "page_token_option": {
                        "type": "RequestOption", "inject_into": "request_parameter", "field_name": "page",
                    },
                    "pagination_strategy": {"type": "PageIncrement", "page_size": 2, "start_from_page": 1},
                },
            },
        }
    ],
    "spec": {
        "type": "Spec",
        "connection_specification": {"type": "object", "properties": {"base_url": {"type": "string"}}},
    },
}


def main(base: str) -> None:
    config = {"base_url": base}
    source = ConcurrentDeclarativeSource(source_config=MANIFEST, config=config, catalog=None, state=None)
    (stream,) = source.discover(None, config).streams
    wanted = ConfiguredAirbyteStream(stream, SyncMode.full_refresh, DestinationSyncMode.append)
    catalog = ConfiguredAirbyteCatalog([wanted])
    source = ConcurrentDeclarativeSource(source_config=MANIFEST, config=config, catalog=catalog, state=None)
    messages = source.read(None, config, catalog, [])
    print(json.dumps([message.record.data["name"] for message in messages if message.type == Type.RECORD]))


if __name__ == "__main__":
    main(sys.argv[1])
