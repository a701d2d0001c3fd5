"""The stylesheet of the report: light and dark, wide and narrow, screen and paper."""

STYLESHEET = """
:root {
  color-scheme: light dark;
  --page: #f7f7f5; --card: #ffffff; --ink: #1d2228; --soft: #5d6773;
  --line: #e3e4e1; --zebra: #fafaf8; --accent: #2f6ca8;
  --good: #22764a; --good-tint: #edf6f0;
  --fair: #8a5a00; --fair-tint: #fcf4e2;
  --bad: #b3282d; --bad-tint: #fcefee;
  --none: #5d6773; --none-tint: #f1f2f1;
  --plot-ink: #5d6773; --plot-grid: #d3d7dc; --plot-posterior: #2f6ca8;
  --plot-observed: #c8651b; --plot-reference: #8a94a3; --plot-limit: #c0393e;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #14171a; --card: #1c2024; --ink: #e4e7ea; --soft: #9aa4af;
    --line: #2e343a; --zebra: #20252a; --accent: #7db3e6;
    --good: #6fcf97; --good-tint: #18281f;
    --fair: #e6b45a; --fair-tint: #2a2416;
    --bad: #f08a86; --bad-tint: #2e1c1d;
    --none: #9aa4af; --none-tint: #22272c;
    --plot-ink: #a3adb8; --plot-grid: #3b434b; --plot-posterior: #74aee4;
    --plot-observed: #ee9a55; --plot-reference: #8a94a3; --plot-limit: #ef7d7d;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0; background: var(--page); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue",
    "Noto Sans", "Liberation Sans", sans-serif;
  -webkit-text-size-adjust: 100%;
}
main { max-width: 1080px; margin: 0 auto; padding: 40px 28px 56px; }
header { margin-bottom: 24px; }
h1 {
  font-size: 30px; line-height: 1.2; font-weight: 650; letter-spacing: -0.015em;
  margin: 0 0 6px; overflow-wrap: anywhere;
}
h2 { font-size: 19px; font-weight: 640; letter-spacing: -0.005em; margin: 44px 0 4px; }
h3 { font-size: 14px; font-weight: 640; margin: 18px 0 4px; }
p { margin: 0 0 12px; max-width: 44em; }
.soft, .note, section > p { color: var(--soft); }
.verdict > p { color: var(--ink); }
.note { font-size: 14px; }
code, .name {
  font-family: ui-monospace, "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace;
  font-size: 0.88em; overflow-wrap: anywhere;
}
.verdict {
  border-radius: 10px; padding: 18px 22px; border: 1px solid var(--line);
  border-left: 5px solid var(--tone); background: var(--tint);
}
.verdict.good { --tone: var(--good); --tint: var(--good-tint); }
.verdict.fair { --tone: var(--fair); --tint: var(--fair-tint); }
.verdict.bad { --tone: var(--bad); --tint: var(--bad-tint); }
.verdict.none { --tone: var(--none); --tint: var(--none-tint); }
.verdict h2 { color: var(--tone); margin: 0 0 2px; font-size: 21px; }
.verdict .sign { display: inline-block; margin-right: 0.4em; }
.verdict .lists {
  display: grid; grid-template-columns: repeat(auto-fit, minmax(260px, 1fr));
  gap: 0 36px;
}
.verdict ul { margin: 0; padding-left: 1.15em; }
.verdict li { margin: 2px 0; overflow-wrap: anywhere; }
.verdict p:last-child { margin-bottom: 0; }
.card {
  background: var(--card); border: 1px solid var(--line); border-radius: 10px;
  padding: 14px 16px; margin: 0; min-width: 0;
}
.numbers {
  display: grid; grid-template-columns: repeat(4, 1fr);
  gap: 1px; background: var(--line); border: 1px solid var(--line);
  border-radius: 10px; overflow: hidden; margin: 24px 0 10px;
}
.numbers div { background: var(--card); padding: 12px 16px; }
.numbers dt { font-size: 13px; color: var(--soft); }
.numbers dd {
  margin: 0; font-size: 20px; font-weight: 600; font-variant-numeric: tabular-nums;
  letter-spacing: -0.01em; overflow-wrap: anywhere;
}
.numbers small {
  display: block; font-size: 12.5px; font-weight: 400; color: var(--soft);
  letter-spacing: 0; line-height: 1.35;
}
.scroll { overflow: auto; max-height: 560px; padding: 0; }
table {
  border-collapse: separate; border-spacing: 0; width: 100%; font-size: 14px;
  font-variant-numeric: tabular-nums; white-space: nowrap;
}
th, td { padding: 5px 14px; text-align: right; }
thead th {
  position: sticky; top: 0; z-index: 1; background: var(--card); color: var(--soft);
  font-weight: 500; border-bottom: 1px solid var(--line); padding-top: 9px;
}
tbody th {
  position: sticky; left: 0; background: var(--card); font-weight: 400;
  text-align: left; max-width: 22em; overflow: hidden; text-overflow: ellipsis;
}
thead th:first-child { left: 0; z-index: 2; text-align: left; }
tbody tr.site > * { border-top: 1px solid var(--line); }
tbody tr:first-child > * { border-top: 0; }
tbody tr:last-child > * { padding-bottom: 9px; }
.grid + .note, .card + .note { margin-top: 10px; }
.grid { display: grid; gap: 14px; margin-top: 12px; }
.grid.two { grid-template-columns: repeat(auto-fill, minmax(min(100%, 340px), 1fr)); }
.grid.small { grid-template-columns: repeat(auto-fill, minmax(150px, 1fr)); gap: 10px; }
.grid.small .card { padding: 8px 10px 4px; }
figcaption { font-size: 13px; color: var(--soft); margin-bottom: 6px; }
.grid.small figcaption {
  color: var(--ink); white-space: nowrap; overflow: hidden; text-overflow: ellipsis;
  margin-bottom: 0;
}
.pairs { overflow-x: auto; width: fit-content; max-width: 100%; }
.pairs svg { min-width: 470px; width: 640px; max-width: none; }
svg { display: block; width: 100%; height: auto; }
svg * { stroke-linejoin: round; stroke-linecap: butt; }
svg text { font-family: inherit !important; font-variant-numeric: tabular-nums; }
footer { margin-top: 48px; font-size: 13px; color: var(--soft); }
@media (max-width: 760px) { .numbers { grid-template-columns: repeat(2, 1fr); } }
@media (max-width: 560px) {
  main { padding: 24px 14px 40px; }
  h1 { font-size: 25px; }
  h2 { margin-top: 34px; }
  .verdict { padding: 14px 16px; }
  .card { padding: 10px; }
  .scroll { padding: 0; }
  .numbers div { padding: 10px 12px; }
  th, td { padding: 5px 9px; }
  .pairs svg { width: 100%; }
}
@media print {
  .scroll { max-height: none; }
  .card, .verdict { break-inside: avoid; }
}
"""
