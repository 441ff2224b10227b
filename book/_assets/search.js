"use strict";

// The search page: looks for words in SEARCH_INDEX, which book_search.py writes. A section counts by
// how many of a query's words it holds, how rare they are, how often they stand in it and whether
// its heading has them; a page, by its sections, its title and what its front matter says of it.

const WORD = /\d+(?:[.,]\d+)*|[\p{L}\p{M}]+/u;
const WORDS = new RegExp(WORD, "gu");
const stemmer = new Stemmer();
const stems = new Map();

// A word as it is compared: no ending, no accent, no comma between its digits.
function stem(word) {
  if (!stems.has(word)) {
    const letters = word.normalize("NFD").replace(/\p{M}/gu, "").toLowerCase();
    stems.set(word, /^\d/.test(word) ? word.replaceAll(",", "") : stemmer.stemWord(letters));
  }
  return stems.get(word);
}

const stemmed = (text) => (text.match(WORDS) ?? []).map(stem);
const joined = (words) => ` ${words.join(" ")} `;
const sum = (numbers) => numbers.reduce((total, number) => total + number, 0);

// What is known of a text: how often each word stands in it, and in which order they stand.
function read(text) {
  const words = stemmed(text);
  const counts = new Map();
  for (const word of words) counts.set(word, (counts.get(word) ?? 0) + 1);
  return { counts, inOrder: joined(words), length: words.length };
}

const PAGES = SEARCH_INDEX.map((page) => ({
  ...page,
  about: read(page.about),
  keywords: read(page.keywords),
  sections: page.sections.map(([anchor, heading, text, code]) => {
    const isName = /^\w+([._]\w+)+$/.test(heading); // and says nothing in its single words
    return {
      address: `${page.address}#${anchor}`,
      heading,
      whole: joined(stemmed(heading)),
      text,
      known: {
        heading: read(isName ? "" : heading),
        text: read(text),
        code: read(isName ? `${code} ${heading}` : code),
      },
    };
  }),
}));
const SECTIONS = PAGES.flatMap((page) => page.sections);
const TEXTS = SECTIONS.flatMap(({ known }) => Object.values(known));
const VOCABULARY = new Set(TEXTS.flatMap(({ counts }) => [...counts.keys()]));

// A word, and those that begin with it, which count half, and less the longer they are.
function variants(word) {
  const found = new Map([[word, 1]]);
  if (word.length < 3 || /^\d/.test(word)) return found;
  for (const other of VOCABULARY) {
    if (other !== word && other.startsWith(word)) found.set(other, word.length / other.length / 2);
  }
  return found;
}

// A query's words, and how rare each is: what most sections hold says little.
function understand(query) {
  const words = stemmed(query).map((word) => ({ variants: variants(word) }));
  for (const word of words) {
    const holding = SECTIONS.filter(({ known }) =>
      Object.values(known).some((text) => times(word, text)),
    );
    word.rarity = Math.log(1 + SECTIONS.length / (holding.length || 0.5));
  }
  const all = sum(words.map(({ rarity }) => rarity));
  for (const word of words) word.rarity /= all;
  return { words, inOrder: joined(stemmed(query)) };
}

function times(word, { counts }) {
  let found = 0;
  for (const [variant, weight] of word.variants) found += weight * (counts.get(variant) ?? 0);
  return found;
}

// The share of a query that some texts hold together, from 0 to 1.
const share = (query, texts) =>
  sum(
    query.words.map(
      (word) => word.rarity * Math.min(1, Math.max(...texts.map((text) => times(word, text)))),
    ),
  );

// 1 if a text holds several words one after the other, as the query does, else 0.
const literal = (query, { inOrder }) =>
  Number(query.words.length > 1 && inOrder.includes(query.inOrder));

// What a title tells of a query, from 0 to 2.
const told = (query, title) => share(query, [title]) + literal(query, title);

function scoreOfSection(query, { known, whole }) {
  const { heading, text, code } = known;
  const often = query.words.map((word) => {
    const found = 5 * times(word, heading) + times(word, text) + times(word, code) / 2;
    return (word.rarity * found) / (found + 1 + text.length / 200);
  });
  const said = Math.max(literal(query, text), literal(query, code));
  const named = whole === query.inOrder ? 3 : 0;
  const held = share(query, Object.values(known));
  return held ** 2 * (sum(often) + told(query, heading) + said / 2 + named);
}

// The pages that tell something of a query, the best one first.
function find(text) {
  const query = understand(text);
  const scored = PAGES.map((page) => {
    const sections = page.sections.map((section) => ({
      ...section,
      score: scoreOfSection(query, section),
    }));
    const scores = sections.map(({ score }) => score).sort((a, b) => b - a);
    const points =
      sum(scores.map((score, rank) => score / 2 ** rank)) +
      2 * told(query, page.sections[0].known.heading) +
      2 * told(query, page.keywords) +
      told(query, page.about);
    const held = share(query, sections.flatMap(({ known }) => Object.values(known)));
    return { ...page, sections, score: held ** 2 * points };
  }).sort((a, b) => b.score - a.score);
  const pages = scored.filter(({ score }) => score > scored[0].score / 20);
  return { query, pages };
}

// On the page

const element = (name, properties) => Object.assign(document.createElement(name), properties);

// The sentence with the most to say about a query, and what follows it, as far as there is room.
function snippet(query, text) {
  const sentences = text.split(/(?<=[.!?])\s+(?=[\p{Lu}“(])/u);
  const shares = sentences.map((sentence) => share(query, [read(sentence)]));
  const rest = sentences.slice(shares.indexOf(Math.max(...shares))).join(" ");
  return rest.length > 240 ? `${rest.slice(0, 240).replace(/\s+\S*$/, "")} …` : rest;
}

// A text whose words that answer the query are marked.
function marked(query, text) {
  const asked = new Set(query.words.flatMap(({ variants }) => [...variants.keys()]));
  const parts = text.split(new RegExp(`(${WORD.source})`, "u"));
  return parts.map((part, i) =>
    i % 2 && asked.has(stem(part)) ? element("mark", { textContent: part }) : part,
  );
}

function entry(query, { address, language, number, sections }) {
  const item = element("li", { lang: language });
  const [first] = sections;
  item.append(element("a", { href: address, textContent: number + first.heading }));
  const best = [...sections].sort((a, b) => b.score - a.score).slice(0, 2);
  for (const section of best.filter(({ score }) => score > best[0].score / 2)) {
    const context = element("p", { className: "context" });
    if (section !== first) {
      context.append(element("a", { href: section.address, textContent: section.heading }), " ");
    }
    context.append(...marked(query, snippet(query, section.text)));
    item.append(context);
  }
  return item;
}

const words = new URLSearchParams(location.search).get("q") ?? "";
if (stemmed(words).length) {
  for (const field of document.querySelectorAll('input[name="q"]')) field.value = words;
  const { query, pages } = find(words);
  const summary = pages.length
    ? `Search finished: ${pages.length} page${pages.length > 1 ? "s" : ""}, the best one first.`
    : "Search finished: no page holds these words.";
  const list = element("ul", { className: "search" });
  list.append(...pages.map((page) => entry(query, page)));
  document
    .getElementById("search-results")
    .append(element("p", { className: "search-summary", role: "status", textContent: summary }), list);
}
