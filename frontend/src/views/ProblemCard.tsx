import type { Problem } from "../contract";
import { Icon } from "./icons";

/** What went wrong, what would be right, and what to do: as the problem document says it. */
export function ProblemCard({ problem, onRetry }: { problem: Problem; onRetry: () => void }) {
  const found = problem.found || problem.detail;
  return (
    <div class="notice-card" role="alert">
      <span class="notice-sign notice-sign-warn">
        <Icon name="alert" size={26} />
      </span>
      <h2>{problem.title}</h2>
      {found && <p>{found}</p>}
      {problem.valid && (
        <p>
          <strong>What works:</strong> {problem.valid}
        </p>
      )}
      {problem.remedy && <p>{problem.remedy}</p>}
      <button type="button" class="button button-primary" onClick={onRetry}>
        Try again
      </button>
    </div>
  );
}
