"""How long a reader waits for the first chapter, from a folder: milliseconds, not a ratio.

BOOK_SITE=_build/html takes the book that is there already.
"""

import statistics

PAINTED = """() => performance.getEntriesByName("first-contentful-paint")[0].startTime"""
TYPESET = """async () => { await MathJax.startup.promise; return performance.now() }"""


def test_the_first_chapter(benchmark, site, browser):
    waits = {"first paint": [], "all formulas typeset": []}

    def read():
        with browser.new_context(viewport={"width": 1280, "height": 900}) as context:
            tab = context.new_page()
            tab.goto((site / "book/fitting-problem.html").as_uri(), wait_until="commit")
            tab.wait_for_load_state("domcontentloaded")
            typeset = tab.evaluate(TYPESET)
            waits["all formulas typeset"].append(typeset)
            waits["first paint"].append(tab.evaluate(PAINTED))

    benchmark.pedantic(read, rounds=9, warmup_rounds=1)
    for name, milliseconds in waits.items():
        benchmark.extra_info[f"{name}, milliseconds"] = round(statistics.median(milliseconds))
    print("\n", *benchmark.extra_info.items(), sep="\n  ")
