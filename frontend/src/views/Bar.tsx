/** A share as a line; the number stands beside it as text. */
export function Bar({ value }: { value: number }) {
  return (
    <span class="bar" aria-hidden="true">
      <span style={{ width: `${Math.max(value * 100, 1)}%` }} />
    </span>
  );
}
