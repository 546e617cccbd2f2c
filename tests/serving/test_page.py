from __future__ import annotations

import base64
import hashlib
import re

from deepcnn.serving.page import Page

DATA = '<script type="application/json">{"a": "no code"}</script>'


def test_the_page_needs_nothing_from_elsewhere() -> None:
    content = Page.upload("a test").content
    assert "http:" not in content
    assert "https:" not in content
    assert not re.search(r"<script[^>]+src|<link[^>]+href=\"(?!data:)|@import|url\(", content)
    assert not re.search(r"\son[a-z]+=|innerHTML|insertAdjacentHTML|document\.write", content)


def test_the_policy_names_the_page_s_own_scripts_and_no_other_source() -> None:
    page = Page(
        "<p>&amp;</p><script>let a = 1 < 2;\n// &amp; é\n</script><SCRIPT>b()</SCRIPT>" + DATA
    )
    policy = dict(
        rule.split(" ", 1) for rule in page.headers["Content-Security-Policy"].split("; ")
    )
    hashes = [
        base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        for script in ("let a = 1 < 2;\n// &amp; é\n", "b()")
    ]
    assert policy["script-src"] == " ".join(f"'sha256-{each}'" for each in hashes)
    assert policy["default-src"] == "'none'"
    assert policy["connect-src"] == "'self'"
    assert policy["frame-ancestors"] == "'none'"
    assert "//" not in page.headers["Content-Security-Policy"].replace(policy["script-src"], "")
    assert Page("<p>x</p>").headers["Content-Security-Policy"].count("script-src 'none'") == 1
