"""The page at / in headless Chromium, against a server with load: no complaint of the browser, no request to anybody
else, charts and heat map drawn, an answer in the chat box."""
import time
from urllib.parse import urlparse

import pytest

from browser import Browser
from fake_server import FakeServer
from load import Load
from server import DEMO, Server

# A canvas is read by way of a copy, so that the page's own is drawn as it always is.
PIXELS = """const from = document.getElementById(id), c = new OffscreenCanvas(from.width, from.height),
  g = c.getContext('2d', {willReadFrequently: true}); g.drawImage(from, 0, 0);
  const d = g.getImageData(0, 0, c.width, c.height).data;"""
# How many pixels have a colour of their own: lines do, axes and words are grey.
INK = "(id => {" + PIXELS + """let n = 0; for (let i = 0; i < d.length; i += 4) {
  const rgb = [d[i], d[i + 1], d[i + 2]]; n += d[i + 3] > 128 && Math.max(...rgb) - Math.min(...rgb) > 60; } return n; })"""
COLORS = "(id => {" + PIXELS + """const seen = new Set();
  for (let i = 0; i < d.length; i += 4) seen.add(d[i] << 16 | d[i + 1] << 8 | d[i + 2]); return seen.size; })"""
CHARTS = ["throughput", "ttft", "itl", "tpot", "e2e", "requests", "kv"]


def say(browser, text):
    browser.type("#prompt", text)
    browser.press_enter()


def last_line(browser, kind):
    return browser.run(f"[...document.querySelectorAll('#log .{kind}')].at(-1)?.textContent ?? ''")


def wait_answer(browser, seconds=60):
    browser.wait("!stopper", seconds)


def only_asks(browser, url):
    return {urlparse(request).netloc for request in browser.requests
            if not request.startswith("data:")} == {urlparse(url).netloc}


@pytest.fixture(scope="module")
def busy_server():
    arguments = ["--num-gpu-blocks-override", "600", "--served-model-name", "models/demo"]
    with Server(DEMO, *arguments) as server, Load(server.url, num_clients=16, pause=0.02) as load:
        yield server
        assert not load.errors


def test_the_page_lives(busy_server):
    with Browser(1360, 1190) as browser:
        browser.open(busy_server.url + "/")
        browser.wait("samples.filter(s => s.output > 0 && s.ttft_p50 > 0 && s.e2e_p99 > 0).length > 8", 60)
        browser.wait("experts && document.getElementById('heat').dataset.drawn > 0")
        for chart in CHARTS:
            assert browser.run(f"{INK}('{chart}')") > 20, chart
            browser.run(f"charts.find(c => c.canvas.id === '{chart}').draw([], null)")
            assert browser.run(f"{INK}('{chart}')") == 0, f"{chart}: axes alone are grey"
        assert browser.run("experts.num_layers") == 6 and browser.run("experts.num_experts") == 32
        assert browser.run(f"{COLORS}('heat')") > 50
        for tile in ("t-output", "t-prompt", "t-running", "t-kv"):
            assert browser.run(f"document.getElementById('{tile}').textContent[0]").isdigit(), tile
        say(browser, "What is 2 + 3?")
        wait_answer(browser)
        assert "5" in last_line(browser, "reply")
        assert "tokens" in last_line(browser, "figures") and "first token" in last_line(browser, "figures")
        # A second turn is part of the same conversation.
        say(browser, "Tell me a short story about a fox who meets a lonely shepherd.")
        wait_answer(browser)
        assert browser.run("messages.length") == 4 and len(last_line(browser, "reply")) > 40
        assert browser.complaints == []
        assert only_asks(browser, busy_server.url)


def test_an_answer_can_be_stopped(busy_server):
    with Browser() as browser:
        browser.open(busy_server.url + "/")
        browser.wait("last")
        browser.run("document.getElementById('max-tokens').value = 1000")
        browser.run("document.getElementById('system').value = 'You are brief.'")
        # Stopped at the first text, whenever that comes.
        browser.run("""new MutationObserver(() => { if (document.querySelector('#log .reply')?.textContent)
          stopper?.abort(); }).observe(document.getElementById('log'), {subtree: true, childList: true, characterData: true})""")
        say(browser, "Tell me a short story about a fox who meets a lonely shepherd.")
        wait_answer(browser)
        assert last_line(browser, "figures") == "stopped"
        assert browser.run("document.getElementById('send').textContent") == "Send"
        assert browser.run("messages.map(m => m.role).join()") == "user,assistant"
        assert browser.complaints == []


def test_a_new_conversation_hears_nothing_of_the_old():
    with FakeServer(2, 8, pause=0.2) as server, Browser() as browser:
        browser.open(server.url + "/")
        browser.wait("last")
        say(browser, "Old question")
        browser.wait("document.querySelector('#log .reply')?.textContent")
        # A new conversation while the answer comes, and at once its first question.
        assert browser.run("""(() => { $('clear').click(); const log = $('log').innerText;
          $('prompt').value = 'New question'; $('form').requestSubmit(); return log; })()""").startswith("Say something")
        wait_answer(browser)
        assert browser.run("messages.map(m => m.content).join('|')") == "New question|It is <b>5</b>."
        assert browser.run("document.querySelectorAll('#log .reply').length") == 1
        assert "stopped" not in browser.run("$('log').innerText")
        browser.run("$('clear').click()")
        assert browser.run("messages.length") == 0
        assert browser.run("$('log').innerText").startswith("Say something")
        assert browser.complaints == []


def test_a_refusal_is_shown(busy_server):
    with Browser() as browser:
        browser.open(busy_server.url + "/")
        browser.wait("last")
        browser.run("document.getElementById('temperature').value = -1")
        say(browser, "Hello")
        wait_answer(browser)
        assert "temperature" in last_line(browser, "wrong")
        assert browser.run("messages.length") == 0


def test_many_experts_and_hover():
    with FakeServer(61, 256) as server, Browser() as browser:
        browser.open(server.url + "/")
        browser.wait("document.getElementById('heat').dataset.drawn == 61")
        assert browser.run(f"{COLORS}('heat')") > 100
        browser.run("document.getElementById('heat').scrollIntoView()")
        x, y = browser.run("""(box => { const {row, left, cell} = heatLayout();
          return [box.left + left + 200.5 * cell, box.top + 30.5 * row]; })(document.getElementById('heat').getBoundingClientRect())""")
        browser.mouse("mouseMoved", x, y)
        browser.wait("document.getElementById('tip').style.display === 'block'")
        tip = browser.run("document.getElementById('tip').textContent")
        assert "layer 30, expert 200" in tip and browser.run("experts.window[30][200].toLocaleString('en')") in tip
        browser.run("document.querySelector('#span [data-value=since_start]').click()")
        browser.mouse("mouseMoved", x + 1, y)
        assert browser.run("experts.since_start[30][200].toLocaleString('en')") in \
            browser.run("document.getElementById('tip').textContent")
        began = time.monotonic()
        browser.run("drawHeat()")
        assert time.monotonic() - began < 2
        assert browser.complaints == []


def test_ranks_stand_side_by_side():
    with FakeServer(61, 256, num_ranks=16) as server, Browser() as browser:
        browser.open(server.url + "/")
        browser.wait("rankPast.length > 2")
        cell = "document.querySelectorAll('#ranks tbody tr')[{}].children[{}]"
        assert browser.run("document.querySelectorAll('#ranks tbody tr').length") == 16
        assert browser.run(cell.format(3, 0) + ".textContent") == "3"
        assert browser.run(cell.format(3, 0) + ".title") == "DP 3"
        assert browser.run(cell.format(3, 4) + ".textContent") == "30 %"
        assert browser.run(cell.format(15, 4) + ".textContent") == "0 %"
        assert browser.run(cell.format(3, 6) + ".textContent") == "25 %"
        tokens = float(browser.run(cell.format(3, 1) + ".textContent"))
        assert 700 < tokens < 900, tokens
        colors = browser.run("new Set([...document.querySelectorAll('#ranks .load')].map(c => c.style.background)).size")
        assert colors > 8
        widths = browser.run("[...document.querySelectorAll('#ranks tbody tr')[15].querySelectorAll('.time i')].map(i => i.style.width).join()")
        assert widths == "30%,5%,50%,5%,10%,0%"
        assert "0.70, worst layer 0.50" in browser.run("document.getElementById('rank-note').textContent")
        assert browser.complaints == []


def test_balance_is_told_by_layer():
    with FakeServer(6, 64, num_ranks=8) as server, Browser() as browser:
        browser.open(server.url + "/")
        browser.wait("samples.length > 2 && !document.getElementById('balance').hidden")
        assert browser.run("document.getElementById('balance-note').textContent") == (
            "25 % of the work is at home (13 % without care), 10 % by copies, placement 3, 6 starved and 1 dominant experts, "
            "entropy 0.85, 1 collapsed layer")
        bar = "document.getElementById('layers').children[{}]"
        assert browser.run("document.getElementById('moves').hidden")
        assert browser.run("document.getElementById('layers').children.length") == 6
        assert browser.run(bar.format(0) + ".style.height") == "100%"
        assert "20%" in browser.run(bar.format(0) + ".style.background")
        assert "60%" in browser.run(bar.format(1) + ".style.background")
        assert "1.60 \u00d7 the mean, 2.00 \u00d7" in browser.run(bar.format(1) + ".title")
        assert "entropy 0.75: collapsed" in browser.run(bar.format(0) + ".title")
        assert browser.run(bar.format(1) + ".title").endswith("entropy 0.79")
        assert browser.run("[...document.getElementById('layers').children].map(i => i.className).join()") == "odd,odd,odd,,odd,odd"
        legend = browser.run("document.querySelector('#balance .legend').textContent")
        assert legend == "one slot an expert 2.00busiest rank over mean, now 1.40", legend
        assert browser.complaints == []


def test_changes_of_the_placement_are_told():
    moves = {"committed": 4, "dropped": 1, "last_drop": "rank 2: <b>late</b>", "slots": 9,
             "bytes": 2_500_000, "steps": 40, "stall_seconds": 0.0002}
    with FakeServer(6, 64, num_ranks=8, moves=moves) as server, Browser() as browser:
        browser.open(server.url + "/")
        browser.wait("samples.length > 2 && !document.getElementById('moves').hidden")
        assert browser.run("document.getElementById('moves').textContent") == (
            "placement 3: 9 slots moved in 4 plans, 1 dropped (last: rank 2: <b>late</b>); "
            "2.50 MB fetched while 40 steps ran, steps waited 0.20 ms in all")
        assert "placement" not in browser.run("document.getElementById('balance-note').textContent")
        server.moves = {**moves, "steps": 0}
        browser.wait("document.getElementById('moves').textContent.includes('2.50 MB fetched, steps waited')")
        # A change is marked where the number grows, a restart is none.
        steps = "[[3, 1], [3, 1], [5, 1], [0, 2], [1, 2]].map(([epoch, boot], time) => ({epoch, boot, time}))"
        marks = "charts.map(chart => chart.changes({}).join()).join(';')".format(steps)
        assert browser.run(marks).strip(";") == "2,4"
        assert browser.complaints == []


def test_one_rank_needs_no_table():
    with FakeServer(2, 8) as server, Browser() as browser:
        browser.open(server.url + "/")
        browser.wait("last")
        assert browser.run("document.getElementById('ranks').hidden")
        assert browser.run("document.getElementById('balance').hidden")


def test_a_phone_scrolls_one_way_only():
    with FakeServer(61, 256, num_ranks=64) as server, Browser(390, 844, "dark") as browser:
        browser.open(server.url + "/")
        browser.wait("document.getElementById('heat').dataset.drawn == 61")
        assert browser.run("document.documentElement.scrollWidth") == 390
        assert browser.run("getComputedStyle(document.body).backgroundColor") == "rgb(15, 18, 24)"
        browser.set_scheme("light")
        browser.wait("getComputedStyle(document.body).backgroundColor === 'rgb(244, 245, 248)'")


def test_reasoning_stands_apart_and_text_is_text():
    with FakeServer(2, 8) as server, Browser() as browser:
        browser.open(server.url + "/")
        browser.wait("last")
        say(browser, "What is 2 + 3?")
        wait_answer(browser)
        assert last_line(browser, "reply") == "It is <b>5</b>."
        assert browser.run("document.querySelector('#log details').innerText").endswith("Let me think.")
        assert browser.run("messages[1].content") == "It is <b>5</b>."


def test_a_restart_is_survived():
    with Browser() as browser:
        with FakeServer(2, 8) as server:
            port = server.port
            browser.open(server.url + "/")
            browser.wait("samples.filter(s => s.output > 0).length > 2")
        browser.wait("document.getElementById('status').className === 'down'")
        with FakeServer(2, 8, port=port):
            browser.wait("document.getElementById('status').className === 'up'")
            browser.wait("samples.at(-1).output > 0")
            # Counters that began anew make no negative rate, and the time between is a gap.
            assert browser.run("samples.every(s => s.output === undefined || s.output > 0)")
            assert browser.run("samples.some(s => s.running === undefined)")
            assert browser.run("new Set(samples.map(s => s.boot)).size") == 3


def test_a_key_is_asked_for():
    with FakeServer(2, 8, api_key="sesame") as server, Browser() as browser:
        browser.open(server.url + "/")
        browser.wait("!document.getElementById('key-row').hidden")
        browser.type("#key", "sesame")
        browser.wait("document.getElementById('status').className === 'up'")
        say(browser, "What is 2 + 3?")
        wait_answer(browser)
        assert last_line(browser, "reply") == "It is <b>5</b>."
