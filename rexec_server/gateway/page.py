"""The page: files, served as they are, and the document that describes the API."""

from __future__ import annotations

from flask import Blueprint, Response, current_app, jsonify

from rexec_server.gateway.openapi import document

page = Blueprint("page", __name__)


@page.get("/")
def index() -> Response:
    return current_app.send_static_file("index.html")


@page.get("/openapi.json")
def openapi() -> Response:
    return jsonify(document())
