"""The look of an assessment's page: light and dark, wide and narrow."""

from __future__ import annotations

STYLE = """
:root { color-scheme: light dark; --page: #f6f7f8; --card: #fff; --text: #1c2126; --soft: #5d6873; --line: #dfe3e7;
  --good: #1a7f4b; --bad: #b3372f; --own: #2f6fb0; --others: #c08a1e; --track: #e9edf0; --wash: #fdf1ef; }
@media (prefers-color-scheme: dark) { :root { --page: #14181b; --card: #1d2226; --text: #e6eaed; --soft: #9aa6b0;
  --line: #323a41; --good: #4cc38a; --bad: #ef7b72; --own: #6ba8e5; --others: #e0b04d; --track: #2b3238;
  --wash: #33201f; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--text); font: 15px/1.5 system-ui, "Segoe UI", sans-serif; }
main { max-width: 1080px; margin: 0 auto; padding: 28px 20px 60px; }
h1 { font-size: 24px; margin: 0 0 4px; letter-spacing: -.01em; }
h2 { font-size: 16px; margin: 34px 0 10px; }
p { margin: 0; } .soft { color: var(--soft); }
.verdict { display: inline-block; border-radius: 999px; padding: 3px 14px; font-weight: 600; color: #fff;
  margin-right: 10px; }
.ready { background: var(--good); } .findings { background: var(--bad); }
@media (prefers-color-scheme: dark) { .verdict { color: #14181b; } }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(130px, 1fr)); gap: 12px; margin-top: 22px; }
.card { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 12px 14px; }
.card b { display: block; font-size: 20px; font-weight: 600; font-variant-numeric: tabular-nums; }
.card span { color: var(--soft); font-size: 13px; }
.list { background: var(--card); border: 1px solid var(--line); border-radius: 10px; overflow: hidden; }
.row { padding: 12px 16px; border-top: 1px solid var(--line); } .row:first-child { border-top: 0; }
.finding { border-left: 4px solid var(--bad); background: var(--wash); }
.tag { display: inline-block; font-size: 12px; font-weight: 600; color: var(--bad); text-transform: uppercase;
  letter-spacing: .04em; margin-right: 8px; }
.topic { overflow-wrap: anywhere; font-family: ui-monospace, "SF Mono", Menlo, monospace; font-size: 13px; }
.feature { display: grid; grid-template-columns: minmax(0, 300px) minmax(0, 1fr); gap: 4px 24px; align-items: center; }
.feature .name { font-weight: 600; }
.figures { font-size: 13px; color: var(--soft); font-variant-numeric: tabular-nums; }
.stream { display: grid; grid-template-columns: minmax(0, 1fr) 240px; gap: 4px 24px; align-items: center; }
svg { display: block; width: 100%; height: auto; } svg text { fill: var(--soft); font: 11px system-ui, sans-serif; }
.legend { font-size: 13px; color: var(--soft); margin: 8px 2px 0; }
.legend i { display: inline-block; width: 14px; height: 8px; border-radius: 2px; margin: 0 5px 0 14px; }
.legend i:first-child { margin-left: 0; }
@media (max-width: 680px) { main { padding: 20px 14px 40px; }
  .feature, .stream { grid-template-columns: minmax(0, 1fr); }
  svg text { font-size: 19px; } .stream svg { height: 40px; } }
@media print { body { background: #fff; } .list, .card { break-inside: avoid; } }
"""
