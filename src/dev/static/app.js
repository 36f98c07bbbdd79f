// The handset on the page: draws what the simulated carrier fetched, and tells what travelled for it.
// A fetched page is put into a sandboxed frame without scripts; its links and forms are followed here instead.
"use strict";

const TEXT = {
  en: {
    language: "日本語", lead: "Press 1 on the handset to sign in, then type the code. Everything here runs on this machine.",
    soft_back: "Back", soft_ok: "Select", soft_home: "Home", clear: "CLR", handset: "Handset", restart: "Switch off and on",
    station_handset: "Handset", station_carrier: "Carrier", station_console: "Console",
    sends: "asks", with_cookie: "with its cookie", without_cookie: "with no cookie", adds: "adds {name}", adds_nothing: "adds nothing",
    unasked: "adds nothing without {query}",
    g200: "lets it through", g302: "knows it: new session", g_bound: "binds it: new session", g_pin: "the right PIN: new token", g_login: "lets its login through", g401: "asks to sign in", g403: "refuses", g_own: "its own page", g403_enrol: "does not know it yet",
    not_reached: "not reached", was_told: "told a signed sentence", told_nobody: "not told who", code_title: "Enrolment code",
    code_first: "One is printed in the terminal, or:",
    code_until: "For {account}, once, until {time}.", code_new: "New code", code_type: "Type it",
    password_title: "Or a password", password_note: "For the console's own login.", password_open: "Open it",
    travels: "What travels", travels_note: "Each request as the carrier's gateway passes it on, the latest first.",
    inserted_none: "nothing inserted", show: "show", hide: "hide", from: "from", cookie_sent: "cookie sent", set_cookie: "Set-Cookie",
    kept: "What the gateway keeps", kept_note: "A keyed hash and two days for each handset, no identifier.",
    kept_none: "Nothing yet: no handset is bound.", id: "binding", carrier: "carrier", chain: "keys", bound: "bound", used: "last used",
    sessions: "Open sessions: {n}", told: "What the console was told", told_note: "A signed assertion, and never the identifier's header.",
    told_none: "Nothing yet: it was not asked.", told_form: "Not who it is: its own login finds out.", who: "who", how: "how well", when: "signed in", until: "good until", session: "session",
    fields: "header fields", elsewhere: "This handset reaches the gateway and nothing else.", restarted: "Off and on again: its browser forgot the session.",
    no_field: "There is no field for it on this screen.", lost: "The simulator does not answer. Is `sekisho dev` still running?",
  },
  ja: {
    language: "English", lead: "端末の1を押してログインし、コードを入力します。すべてこのパソコンの中で動いています。",
    soft_back: "戻る", soft_ok: "選択", soft_home: "トップ", clear: "クリア", handset: "端末", restart: "電源を入れ直す",
    station_handset: "端末", station_carrier: "携帯会社", station_console: "管理画面",
    sends: "要求", with_cookie: "Cookieあり", without_cookie: "Cookieなし", adds: "{name} を付加", adds_nothing: "何も付けない",
    unasked: "{query} がないので付けない",
    g200: "通過", g302: "確認済み、新しいセッション", g_bound: "登録、新しいセッション", g_pin: "暗証番号を確認、新しいトークン", g_login: "ログイン画面へ通す", g401: "ログインを求める", g403: "拒否", g_own: "関所のページ", g403_enrol: "未登録の端末",
    not_reached: "届いていない", was_told: "署名付きの証明を受信", told_nobody: "利用者は知らされない", code_title: "登録コード",
    code_first: "ターミナルにも表示されています。",
    code_until: "{account} 用、1回限り、{time} まで", code_new: "新しいコード", code_type: "入力する",
    password_title: "またはパスワード", password_note: "管理画面のログイン用", password_open: "開く",
    travels: "通信の中身", travels_note: "携帯会社のゲートウェイを通ったリクエスト（新しい順）",
    inserted_none: "付加なし", show: "表示", hide: "隠す", from: "送信元", cookie_sent: "Cookie送信", set_cookie: "Set-Cookie",
    kept: "関所が保存するもの", kept_note: "端末ごとに鍵付きハッシュと日付2つだけ。識別番号は残りません。",
    kept_none: "まだ何もありません。登録された端末はありません。", id: "登録", carrier: "携帯会社", chain: "鍵", bound: "登録日", used: "最終利用",
    sessions: "有効なセッション: {n}", told: "管理画面が受け取ったもの", told_note: "署名付き証明だけ。識別番号のヘッダーは届きません。",
    told_none: "まだ届いていません。", told_form: "利用者は届いていません。ログインで確認します。", who: "利用者", how: "確認の強さ", when: "ログイン", until: "有効期限", session: "セッション",
    fields: "ヘッダー", elsewhere: "この端末から接続できるのは関所だけです。", restarted: "電源を入れ直しました。セッションは端末から消えました。",
    no_field: "この画面には入力欄がありません。", lost: "シミュレーターが応答しません。`sekisho dev` は動いていますか。",
  },
};
const LABEL = { docomo: "docomo", au: "au", softbank: "SoftBank" };
const LETTERS = { 2: "ABC", 3: "DEF", 4: "GHI", 5: "JKL", 6: "MNO", 7: "PQRS", 8: "TUV", 9: "WXYZ" };
const MAX_HOPS = 40;
const SCROLL = 90; // pixels

const $ = (id) => document.getElementById(id);
const frame = $("frame");
let facts;
let language = (navigator.language || "en").startsWith("ja") ? "ja" : "en";
let hand = { carrier: "docomo", number: 1 };
let code = null;
let selected = null; // what the handset's cursor is on
let busy = false;
const handsets = new Map();

/** The state of the handset in hand. */
function state() {
  const key = `${hand.carrier}/${hand.number}`;
  if (!handsets.has(key)) handsets.set(key, { page: null, back: [], hops: [], told: null });
  return handsets.get(key);
}

function t(key, values = {}) {
  return TEXT[language][key].replace(/\{(\w+)\}/g, (_, name) => values[name]);
}

function el(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key === "onclick") element.addEventListener("click", value);
    else if (value !== null && value !== false) element.setAttribute(key, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child !== null && child !== false));
  return element;
}

function toast(message) {
  $("toast").textContent = message;
  $("toast").hidden = false;
  clearTimeout(toast.timer);
  toast.timer = setTimeout(() => { $("toast").hidden = true; }, 5000);
}

async function call(path, body) {
  const options = body === undefined ? {} : {
    method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body),
  };
  let answer;
  try {
    answer = await fetch(path, options);
  } catch {
    throw new Error(t("lost"));
  }
  const reply = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new Error(reply.error?.message ?? `${answer.status}`);
  return reply;
}

// --- The handset's browser -------------------------------------------------------------------------------------------

/** Fetches through the carrier and shows what came. */
async function go(url, { method = "GET", fields = [], keep = true } = {}) {
  if (busy) return;
  busy = true;
  document.body.classList.add("busy");
  const handset = { ...hand };
  const here = state();
  try {
    const charset = here.page?.charset ?? "";
    const got = await call("/api/fetch", { handset, ask: { method, url, fields, charset, language } });
    if (keep && here.page && here.page.get && here.page.url !== got.url) here.back.push(here.page.url);
    // A page that came of a POST is not fetched again by going back to it.
    const get = method === "GET" || got.hops.length > 1;
    here.page = { url: got.url, html: got.html, type: got.media_type, charset: got.charset, get };
    for (const hop of here.hops) hop.fresh = false;
    here.hops = [...got.hops.reverse().map((hop) => ({ ...hop, fresh: true })), ...here.hops].slice(0, MAX_HOPS);
    here.told = got.told ?? here.told;
    here.reached = got.told !== null;
    draw();
    await drawKept();
  } catch (error) {
    toast(error.message);
  } finally {
    busy = false;
    document.body.classList.remove("busy");
  }
}

const home = () => go(`${facts.gateway}/`);

function back() {
  const url = state().back.pop();
  if (url) go(url, { keep: false });
}

function follow(link) {
  let url;
  try {
    url = new URL(link.getAttribute("href"), state().page.url);
  } catch {
    return;
  }
  if (url.origin === facts.gateway) go(url.href.split("#")[0]);
  else toast(t("elsewhere"));
}

function submit(form, button) {
  const fields = [...new FormData(form)].map(([name, value]) => [name, String(value)]);
  if (button?.name) fields.push([button.name, button.value]);
  const url = new URL(form.getAttribute("action") || "", state().page.url);
  go(url.href, { method: (form.getAttribute("method") || "get").toUpperCase(), fields });
}

/** Puts a page into the frame: without scripts, and with its styles as a sheet that the policy lets us construct. */
function show(page) {
  let css = "";
  const isHtml = page.type.includes("html");
  // Before it is parsed: a parsed inline sheet is one that the policy blocks, and the browser says so each time.
  const bare = isHtml ? page.html.replace(/<style[^>]*>([^]*?)<\/style>/gi, (_, text) => { css += text; return ""; }) : "";
  const parsed = new DOMParser().parseFromString(bare, "text/html");
  if (!isHtml) parsed.body.append(Object.assign(parsed.createElement("pre"), { textContent: page.html }));
  for (const unwanted of parsed.querySelectorAll("style, script, link, base, meta, iframe, object, embed")) unwanted.remove();
  for (const styled of parsed.querySelectorAll("[style]")) styled.removeAttribute("style");
  $("page-title").textContent = parsed.title;
  frame.onload = () => {
    const inside = frame.contentDocument;
    const sheet = new frame.contentWindow.CSSStyleSheet();
    sheet.replaceSync(`${css}\nhtml{scrollbar-width:thin;scrollbar-color:#b9b6ab #0000}pre{white-space:pre-wrap;font-size:12px}[data-cursor]{outline:3px solid #f2a72e!important;outline-offset:-1px}`);
    inside.adoptedStyleSheets = [sheet];
    inside.addEventListener("click", (event) => {
      const target = event.target.closest?.("a[href], button, input[type=submit], input[type=image]");
      if (!target) return;
      event.preventDefault();
      if (target.localName === "a") follow(target);
      else if (target.form) submit(target.form, target);
    });
    inside.addEventListener("focusin", (event) => moveTo(event.target));
    inside.addEventListener("keydown", typed);
    selected = null;
    const fields = stops().filter(isField);
    moveTo(fields.find((field) => !field.value) ?? fields[0] ?? stops().find((one) => isOnScreen(one) && !acts(one)));
  };
  frame.srcdoc = `<!DOCTYPE html>${parsed.documentElement.outerHTML}`;
}

/** Where the cursor can stand. */
function stops() {
  return [...(frame.contentDocument?.querySelectorAll("a[href], button, input:not([type=hidden]), select, textarea") ?? [])];
}

/** Whether OK on it changes something: a cursor that nobody moved must not stand there. */
const acts = (element) => element.localName !== "a" && element.form?.method === "post";

function moveTo(element) {
  if (!element?.matches?.("a, button, input, select, textarea")) return;
  selected?.removeAttribute("data-cursor");
  selected = element;
  element.setAttribute("data-cursor", "");
  element.scrollIntoView({ block: "nearest" });
}

/** One link on, if it is near enough to be seen; else the page moves under the cursor, as it does on such handsets. */
function step(by) {
  const all = stops();
  const at = all.indexOf(selected);
  const next = selected && isOnScreen(selected) ? all[at + by] : all.find(isOnScreen) ?? all[at + by];
  if (next && isOnScreen(next, SCROLL)) moveTo(next);
  else frame.contentWindow?.scrollBy({ top: SCROLL * by });
}

function isOnScreen(element, margin = 0) {
  const { top, bottom } = element.getBoundingClientRect();
  return bottom > -margin && top < frame.clientHeight - 12 + margin;
}

const isField = (element) => element?.matches("input:not([type=submit]):not([type=button]), textarea") ?? false;

function ok() {
  if (isField(selected)) selected.form?.querySelector("[type=submit], button")?.click();
  else selected?.click();
}

function digit(figure) {
  if (isField(selected)) {
    if (selected.maxLength < 0 || selected.value.length < selected.maxLength) selected.value += figure;
  } else {
    frame.contentDocument?.querySelector(`[accesskey="${figure}"]`)?.click();
  }
}

function clear() {
  if (isField(selected) && selected.value) selected.value = selected.value.slice(0, -1);
  else back();
}

async function restart() {
  try {
    await call("/api/restart", { handset: hand });
  } catch (error) {
    return toast(error.message);
  }
  state().back = [];
  toast(t("restarted"));
  home();
}

const KEYS = {
  up: () => step(-1), down: () => step(1), left: back, right: ok, ok, back, home, call: home, power: restart, clear,
};

function press(key) {
  (KEYS[key] ?? (() => digit(key)))();
}

/** The computer's own keys, where nobody is typing into a field of the page. */
function typed(event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const inField = isField(event.target);
  const moves = { ArrowUp: "up", ArrowDown: "down" }[event.key];
  const key = moves ?? (inField ? { Enter: "ok" }[event.key] : { Backspace: "clear", Escape: "back" }[event.key]);
  const figure = !inField && /^[0-9*#]$/.test(event.key) ? event.key : null;
  // Enter on a button of the page around is that button's.
  const enters = event.key === "Enter" && event.target.ownerDocument !== document;
  const chosen = key ?? figure ?? (enters ? "ok" : null);
  if (!chosen) return;
  event.preventDefault();
  press(chosen);
}

// --- Beside the handset ----------------------------------------------------------------------------------------------

function draw() {
  const here = state();
  document.documentElement.lang = language;
  document.body.dataset.carrier = hand.carrier;
  for (const element of document.querySelectorAll("[data-t]")) element.textContent = t(element.dataset.t);
  $("language").textContent = t("language");
  $("carrier-name").textContent = LABEL[hand.carrier];
  $("brand").textContent = LABEL[hand.carrier];
  for (const button of $("choose").children) button.setAttribute("aria-checked", String(button.dataset.name === hand.carrier));
  for (const button of $("numbers").children) button.setAttribute("aria-pressed", String(Number(button.dataset.number) === hand.number));
  if (here.page) show(here.page);
  drawWay(here);
  $("hops").replaceChildren(...here.hops.map(drawHop));
  drawTold(here.told);
  drawCode();
}

function drawWay(here) {
  const hop = here.hops.find((one) => one.inserted && one.fresh) ?? here.hops[0];
  const last = here.hops[0];
  const carrier = facts.carriers.find(({ name }) => name === hand.carrier);
  $("agent").textContent = `${carrier.network}  ${carrier.user_agent}`;
  const stations = {
    handset: ["on", hop ? `${t("sends")} ${path(hop.url).split("?")[0]}, ${t(hop.cookie ? "with_cookie" : "without_cookie")}` : ""],
    carrier: hop?.inserted ? ["adds", t("adds", { name: hop.inserted.name })]
      : ["on", carrier.asked_by ? t("unasked", { query: carrier.asked_by }) : t("adds_nothing")],
    gateway: ["on", last ? gatewayDid(here) : ""],
    console: !here.reached ? ["", t("not_reached")] : here.told.claims ? ["good", t("was_told")] : ["on", t("told_nobody")],
  };
  for (const station of $("way").children) {
    const [mark, text] = stations[station.dataset.station];
    station.className = mark;
    station.querySelector("span").textContent = text;
  }
}

function gatewayDid(here) {
  const last = here.hops[0];
  const entered = here.hops.find((hop) => hop.fresh && hop.status === 302 && hop.set_cookie);
  if (entered && path(entered.url).startsWith("/_sekisho/pin")) return t("g_pin");
  if (entered) return t(entered.method === "POST" ? "g_bound" : "g302");
  if (here.reached) return t(here.told.claims ? "g200" : "g_login");
  if (last.status === 401) return t("g401");
  if (last.status === 403) return t(frame.srcdoc.includes('name="code"') ? "g403_enrol" : "g403");
  return t("g_own");
}

const path = (url) => url.replace(facts.gateway, "");
/** Form tokens are long and single-use: their beginning is enough to tell them apart. */
const shortened = (url) => path(url).replace(/([?&]t=.{4})[^&]+/, "$1…");

function drawHop(hop) {
  return el(
    "li", { class: hop.fresh ? "hop fresh" : "hop" },
    el("div", { class: "line" }, el("b", {}, hop.method), el("code", {}, shortened(hop.url)), el("span", { class: `status s${Math.floor(hop.status / 100)}` }, String(hop.status))),
    el(
      "div", { class: "chips" },
      el("span", { class: "chip" }, `${t("from")} ${hop.source}`),
      hop.inserted ? insertedChip(hop.inserted) : el("span", { class: "chip" }, t("inserted_none")),
      hop.cookie && el("span", { class: "chip cookie" }, t("cookie_sent")),
      hop.set_cookie && el("span", { class: "chip cookie" }, t("set_cookie")),
      hop.bytes > 0 && el("span", { class: "chip" }, `${hop.charset}, ${hop.bytes} B`),
    ),
  );
}

function insertedChip({ name, value }) {
  const hidden = "•".repeat(Math.min(value.length, 12));
  const text = el("code", {}, hidden);
  const toggle = el("button", { type: "button", onclick: () => {
    const opens = text.textContent === hidden;
    text.textContent = opens ? value : hidden;
    toggle.textContent = t(opens ? "hide" : "show");
  } }, t("show"));
  return el("span", { class: "chip adds" }, `+ ${name}: `, text, toggle);
}

async function drawKept() {
  let kept;
  try {
    kept = await call("/api/kept");
  } catch (error) {
    return toast(error.message);
  }
  if (kept.bindings.length === 0) {
    $("kept").replaceChildren(el("p", { class: "empty" }, t("kept_none")));
    return;
  }
  const head = ["carrier", "id", "chain", "bound", "used"].map((name) => el("th", {}, t(name)));
  const rows = kept.bindings.map((one) => el(
    "tr", {}, el("td", {}, LABEL[one.carrier] ?? one.carrier), el("td", { class: "id", title: one.id }, one.id),
    el("td", {}, one.chain.join(" ")), el("td", {}, one.bound_on), el("td", {}, one.last_used_on),
  ));
  $("kept").replaceChildren(
    el("table", {}, el("thead", {}, el("tr", {}, ...head)), el("tbody", {}, ...rows)),
    el("p", { class: "sessions" }, t("sessions", { n: kept.sessions.length })),
  );
}

function drawTold(told) {
  if (!told) {
    $("told").replaceChildren(el("p", { class: "empty" }, t("told_none")));
    return;
  }
  const { claims, headers } = told;
  $("told").replaceChildren(
    claims ? drawClaims(claims) : el("p", { class: "empty" }, t("told_form")),
    el("p", { class: "note" }, t("fields")),
    el("div", { class: "chips" }, ...headers.map((name) => el("span", { class: name === "sekisho-jwt-assertion" ? "chip assertion" : "chip" }, name))),
  );
}

function drawClaims(claims) {
  const time = (seconds) => new Date(seconds * 1000).toLocaleTimeString(language);
  const rows = [
    ["who", el("code", {}, claims.sub)], ["how", `${claims.acr.split(":").pop()} (${claims.amr.join(", ")})`],
    ["when", time(claims.auth_time)], ["until", time(claims.exp)], ["session", el("code", {}, claims.sid)],
  ];
  return el("dl", {}, ...rows.flatMap(([name, value]) => [el("dt", {}, t(name)), el("dd", {}, value)]));
}

function drawCode() {
  $("type-code").hidden = !code;
  if (!code) {
    $("code-note").textContent = t("code_first");
    return;
  }
  $("code").textContent = code.code;
  const time = new Date(code.expires_at).toLocaleTimeString(language, { hour: "2-digit", minute: "2-digit" });
  $("code-note").textContent = t("code_until", { account: code.account, time });
}

async function newCode() {
  try {
    code = await call("/api/code", {});
    drawCode();
  } catch (error) {
    toast(error.message);
  }
}

function type(name, text) {
  const field = frame.contentDocument?.querySelector(`input[name=${name}]`);
  if (!field) return toast(t("no_field"));
  field.value = text;
  moveTo(field);
}

function take(handset) {
  if (busy) return;
  hand = handset;
  draw();
  if (!state().page) home();
}

async function start() {
  try {
    facts = await call("/api/facts");
  } catch (error) {
    return toast(error.message);
  }
  $("keys").replaceChildren(...[..."123456789*0#"].map((figure) => el(
    "button", { type: "button", "data-key": figure }, figure, LETTERS[figure] ? el("small", {}, LETTERS[figure]) : el("small"),
  )));
  $("choose").replaceChildren(...facts.carriers.map(({ name }) => el(
    "button", { type: "button", role: "radio", "data-name": name, onclick: () => take({ carrier: name, number: 1 }) }, el("i"), LABEL[name],
  )));
  $("numbers").replaceChildren(...Array.from({ length: facts.handsets_each }, (_, index) => el(
    "button", { type: "button", "data-number": String(index + 1), onclick: () => take({ carrier: hand.carrier, number: index + 1 }) }, String(index + 1),
  )));
  $("phone").addEventListener("mousedown", (event) => { if (event.target.closest("button")) event.preventDefault(); });
  $("phone").addEventListener("click", (event) => {
    const key = event.target.closest("[data-key]")?.dataset.key;
    if (key) press(key);
  });
  document.addEventListener("keydown", (event) => { if (!event.target.closest?.("button, a, input")) typed(event); });
  $("language").addEventListener("click", () => { if (!busy) { language = language === "en" ? "ja" : "en"; draw(); drawKept(); home(); } });
  $("new-code").addEventListener("click", newCode);
  $("type-code").addEventListener("click", () => type("code", code.code));
  $("open-login").addEventListener("click", () => go(`${facts.gateway}/login`));
  $("type-password").addEventListener("click", () => type("password", facts.password));
  $("password").textContent = `${facts.account} / ${facts.password}`;
  $("power").addEventListener("click", restart);
  take(hand);
}

start();
