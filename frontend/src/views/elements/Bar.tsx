/** A share as a line; the number is next to it as text. */
export function Bar({ value }: { value: number }) {
  return (
    <span class="bar" aria-hidden="true">
      <span style={{ width: value > 0 ? `${Math.max(value * 100, 1)}%` : 0 }} />
    </span>
  );
}
